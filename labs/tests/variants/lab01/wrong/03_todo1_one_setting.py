"""1 L1-1-CONSTANT: leaves max_model_len out"""


def create_llm(model_name=DEFAULT_MODEL, max_model_len=512):
    return LLM(model_name)
