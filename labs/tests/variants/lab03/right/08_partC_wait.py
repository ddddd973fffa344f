"""C: asyncio.wait, then cancels"""


async def generate_with_timeout(engine, prompt, sampling_params, request_id, timeout_s):
    async def read():
        text = ""
        async for output in engine.generate(prompt, sampling_params, request_id):
            text = output.outputs[0].text
        return text

    task = asyncio.create_task(read())
    try:
        done, _ = await asyncio.wait([task], timeout=timeout_s)
        if not done:
            raise TimeoutError(f"{request_id} took longer than {timeout_s} s")
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
