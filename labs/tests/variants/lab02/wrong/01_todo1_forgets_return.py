"""1 L2-1-NONE: builds the engine, forgets to return it"""


async def create_async_engine(
    model_name: str = DEFAULT_MODEL,
    tensor_parallel_size: int = 1,
    gpu_memory_utilization: float = 0.9,
) -> AsyncLLMEngine:
    engine_args = AsyncEngineArgs(
        model=model_name,
        tensor_parallel_size=tensor_parallel_size,
        gpu_memory_utilization=gpu_memory_utilization,
    )
    AsyncLLMEngine.from_engine_args(engine_args)
