"""A: cancels the reader from a watcher task"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    seen = {"text": ""}

    async def read():
        async for output in engine.generate(prompt, sampling_params, request_id):
            seen["text"] = output.outputs[0].text
        return True

    reading = asyncio.create_task(read())

    async def watch():
        await stop.wait()
        reading.cancel()

    watching = asyncio.create_task(watch())
    try:
        is_finished = await reading
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        is_finished = False
    finally:
        watching.cancel()
        reading.cancel()
        await asyncio.gather(reading, watching, return_exceptions=True)
    return seen["text"], is_finished
