"""A L3-A-SHAPE: returns only the text"""


async def generate_until(
    engine: AsyncLLMEngine,
    prompt: str,
    sampling_params: SamplingParams,
    request_id: str,
    stop: asyncio.Event,
) -> tuple[str, bool]:
    text = ""

    async def read() -> None:
        nonlocal text
        async with aclosing(engine.generate(prompt, sampling_params, request_id)) as stream:
            async for output in stream:
                text = output.outputs[0].text

    reading = asyncio.create_task(read())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            reading.result()
        return text
    finally:
        reading.cancel()
        stopping.cancel()
        await asyncio.gather(reading, stopping, return_exceptions=True)
