"""A: looks at the flag every 20 ms"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    texts = [""]

    async def read():
        async for output in engine.generate(prompt, sampling_params, request_id):
            texts.append(output.outputs[0].text)

    reading = asyncio.create_task(read())
    try:
        while not reading.done() and not stop.is_set():
            await asyncio.wait([reading], timeout=0.02)
        if reading.done():
            await reading
        return texts[-1], reading.done()
    finally:
        reading.cancel()
        await asyncio.wait([reading])
