"""1: the settings in a dict, and one more"""


def create_llm(model_name=DEFAULT_MODEL, max_model_len=512):
    settings = {"model": model_name, "max_model_len": max_model_len, "seed": 1}
    llm = LLM(**settings)
    return llm
