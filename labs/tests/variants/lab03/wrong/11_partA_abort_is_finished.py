"""A L3-A-FLAG: aborts, and takes the aborted output for the last"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    async def watch():
        await stop.wait()
        while True:
            await engine.abort(request_id)
            await asyncio.sleep(0.005)

    text, is_finished = "", False
    watching = asyncio.create_task(watch())
    try:
        async with aclosing(engine.generate(prompt, sampling_params, request_id)) as stream:
            async for output in stream:
                text, is_finished = output.outputs[0].text, output.finished
        return text, is_finished
    finally:
        watching.cancel()
