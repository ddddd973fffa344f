"""A L3-A-LEAK: does not end the request when it stops"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    text = ""

    async def read():
        nonlocal text
        async for output in engine.generate(prompt, sampling_params, request_id):
            text = output.outputs[0].text

    reading = asyncio.create_task(read())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if reading.done():
        reading.result()
    return text, reading.done()
