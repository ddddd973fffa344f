"""A L3-A-TEXT: loses the text when it stops"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    async def read():
        text = ""
        async for output in engine.generate(prompt, sampling_params, request_id):
            text = output.outputs[0].text
        return text

    reading = asyncio.create_task(read())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
        return (reading.result(), True) if reading.done() else ("", False)
    finally:
        reading.cancel()
        stopping.cancel()
        await asyncio.gather(reading, stopping, return_exceptions=True)
