"""1 L1-1-CONSTANT: constants instead of the parameters"""


def create_llm(model_name=DEFAULT_MODEL, max_model_len=512):
    return LLM(model=DEFAULT_MODEL, max_model_len=512)
