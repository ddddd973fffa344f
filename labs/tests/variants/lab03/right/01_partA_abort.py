"""A: aborts through the engine"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    async def watch():
        await stop.wait()
        # Before it has begun there is nothing to abort yet.
        while True:
            await engine.abort(request_id)
            await asyncio.sleep(0.005)

    text, is_finished = "", False
    watching = asyncio.create_task(watch())
    try:
        async with aclosing(engine.generate(prompt, sampling_params, request_id)) as stream:
            async for output in stream:
                text = output.outputs[0].text
                is_finished = output.finished and output.outputs[0].finish_reason != "abort"
        return text, is_finished
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
