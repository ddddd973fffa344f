"""1: the model by its place"""


def create_llm(model_name=DEFAULT_MODEL, max_model_len=512):
    return LLM(model_name, max_model_len=max_model_len)
