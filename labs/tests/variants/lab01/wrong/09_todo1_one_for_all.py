"""1 L1-1-CACHED: keeps the first LLM for later calls"""

_kept = []


def create_llm(model_name=DEFAULT_MODEL, max_model_len=512):
    if not _kept:
        _kept.append(LLM(model=model_name, max_model_len=max_model_len))
    return _kept[0]
