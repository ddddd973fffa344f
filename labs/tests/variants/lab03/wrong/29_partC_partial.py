"""C L3-C-PARTIAL: returns part of the text as if it were whole"""


async def generate_with_timeout(engine, prompt, sampling_params, request_id, timeout_s):
    text = ""
    try:
        async with asyncio.timeout(timeout_s):
            async for output in engine.generate(prompt, sampling_params, request_id):
                text = output.outputs[0].text
    except TimeoutError:
        if not text:
            raise
    return text
