"""C L3-C-ASYNCWITH: asyncio.timeout without async"""


async def generate_with_timeout(engine, prompt, sampling_params, request_id, timeout_s):
    text = ""
    with asyncio.timeout(timeout_s):
        async for output in engine.generate(prompt, sampling_params, request_id):
            text = output.outputs[0].text
    return text
