"""A L3-A-LEAK: cleans up only when nobody cancels it"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    text = ""

    async def read():
        nonlocal text
        async for output in engine.generate(prompt, sampling_params, request_id):
            text = output.outputs[0].text

    reading = asyncio.create_task(read())
    stopping = asyncio.create_task(stop.wait())
    done, pending = await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    if reading in done:
        await reading
    return text, reading in done
