"""A L3-A-TEXT: the inner function assigns to a text of its own"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    text = ""

    async def read():
        async for output in engine.generate(prompt, sampling_params, request_id):
            text = output.outputs[0].text

    reading = asyncio.create_task(read())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            reading.result()
        return text, reading.done()
    finally:
        reading.cancel()
        stopping.cancel()
        await asyncio.gather(reading, stopping, return_exceptions=True)
