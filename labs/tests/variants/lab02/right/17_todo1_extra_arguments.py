"""1: extra engine arguments"""


async def create_async_engine(
    model_name: str = DEFAULT_MODEL,
    tensor_parallel_size: int = 1,
    gpu_memory_utilization: float = 0.9,
) -> AsyncLLMEngine:
    return AsyncLLMEngine.from_engine_args(
        AsyncEngineArgs(
            model=model_name,
            tensor_parallel_size=tensor_parallel_size,
            gpu_memory_utilization=gpu_memory_utilization,
            max_num_seqs=8,
            enforce_eager=True,
        )
    )
