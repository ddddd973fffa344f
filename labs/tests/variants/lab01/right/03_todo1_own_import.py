"""1: imports LLM itself"""


def create_llm(model_name=DEFAULT_MODEL, max_model_len=512):
    from labkit import backend

    return backend.LLM(model=model_name, max_model_len=max_model_len)
