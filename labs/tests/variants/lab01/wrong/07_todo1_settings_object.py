"""1 L1-1-SETTINGS: gives LLM an object of settings"""


def create_llm(model_name=DEFAULT_MODEL, max_model_len=512):
    from labkit.backend import AsyncEngineArgs

    return LLM(AsyncEngineArgs(model=model_name, max_model_len=max_model_len))
