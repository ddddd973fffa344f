"""C L3-C-OTHER: raises an error of another kind"""


async def generate_with_timeout(engine, prompt, sampling_params, request_id, timeout_s):
    text = ""
    try:
        async with asyncio.timeout(timeout_s):
            async for output in engine.generate(prompt, sampling_params, request_id):
                text = output.outputs[0].text
    except TimeoutError:
        raise ValueError("too late") from None
    return text
