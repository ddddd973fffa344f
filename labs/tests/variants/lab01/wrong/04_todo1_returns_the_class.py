"""1 L1-1-CLASS: returns the class"""


def create_llm(model_name=DEFAULT_MODEL, max_model_len=512):
    return LLM
