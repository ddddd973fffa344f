"""A: a task group"""


class Stopped(Exception):
    pass


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    text = ""

    async def watch():
        await stop.wait()
        raise Stopped

    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch())
            async with aclosing(engine.generate(prompt, sampling_params, request_id)) as stream:
                async for output in stream:
                    text = output.outputs[0].text
            watching.cancel()
        return text, True
    except* Stopped:
        pass
    return text, False
