"""1 L1-1-ONLINE: starts the online engine"""


def create_llm(model_name=DEFAULT_MODEL, max_model_len=512):
    from labkit.backend import AsyncEngineArgs, AsyncLLMEngine

    args = AsyncEngineArgs(model=model_name, max_model_len=max_model_len)
    return AsyncLLMEngine.from_engine_args(args)
