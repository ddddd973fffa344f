"""1 L1-1-NONE: forgets to return it"""


def create_llm(model_name=DEFAULT_MODEL, max_model_len=512):
    llm = LLM(model=model_name, max_model_len=max_model_len)
