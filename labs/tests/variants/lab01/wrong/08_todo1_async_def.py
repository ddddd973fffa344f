"""1 L1-1-ASYNC: makes it async def"""


async def create_llm(model_name=DEFAULT_MODEL, max_model_len=512):
    return LLM(model=model_name, max_model_len=max_model_len)
