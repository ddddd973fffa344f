"""A L3-TASKS: asyncio.wait with coroutines"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    text = ""

    async def read():
        nonlocal text
        async for output in engine.generate(prompt, sampling_params, request_id):
            text = output.outputs[0].text

    done, pending = await asyncio.wait({read(), stop.wait()}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return text, len(done) == 1
