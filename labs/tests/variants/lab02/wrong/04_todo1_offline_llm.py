"""1 L2-1-OFFLINE: uses the offline LLM class"""


async def create_async_engine(
    model_name: str = DEFAULT_MODEL,
    tensor_parallel_size: int = 1,
    gpu_memory_utilization: float = 0.9,
) -> AsyncLLMEngine:
    from labkit.backend import LLM

    return LLM(model=model_name)
