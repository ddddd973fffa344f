"""1 L2-1-ARGNAME: takes the parameter's name for the setting's"""


async def create_async_engine(
    model_name: str = DEFAULT_MODEL,
    tensor_parallel_size: int = 1,
    gpu_memory_utilization: float = 0.9,
) -> AsyncLLMEngine:
    engine_args = AsyncEngineArgs(model_name=model_name)
    return AsyncLLMEngine.from_engine_args(engine_args)
