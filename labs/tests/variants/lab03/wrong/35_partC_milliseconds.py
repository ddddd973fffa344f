"""C L3-C-EARLY: milliseconds for seconds"""


async def generate_with_timeout(
    engine: AsyncLLMEngine,
    prompt: str,
    sampling_params: SamplingParams,
    request_id: str,
    timeout_s: float,
) -> str:
    text = ""
    async with asyncio.timeout(timeout_s / 1000):
        stream = engine.generate(prompt, sampling_params, request_id)
        async with aclosing(stream) as outputs:
            async for output in outputs:
                text = output.outputs[0].text
    return text
