"""1 L2-1-CONSTANT: constants instead of the parameters"""


async def create_async_engine(
    model_name: str = DEFAULT_MODEL,
    tensor_parallel_size: int = 1,
    gpu_memory_utilization: float = 0.9,
) -> AsyncLLMEngine:
    engine_args = AsyncEngineArgs(
        model=DEFAULT_MODEL, tensor_parallel_size=1, gpu_memory_utilization=0.9
    )
    return AsyncLLMEngine.from_engine_args(engine_args)
