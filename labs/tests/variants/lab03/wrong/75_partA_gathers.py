"""A L3-A-BOTH: waits for the stream and for the flag"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    text = ""

    async def read():
        nonlocal text
        async for output in engine.generate(prompt, sampling_params, request_id):
            text = output.outputs[0].text

    await asyncio.gather(read(), stop.wait())
    return text, not stop.is_set()
