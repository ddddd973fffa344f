"""1 L1-1-ARGNAME: takes the parameter's name for the setting's"""


def create_llm(model_name=DEFAULT_MODEL, max_model_len=512):
    return LLM(model_name=model_name, max_model_len=max_model_len)
