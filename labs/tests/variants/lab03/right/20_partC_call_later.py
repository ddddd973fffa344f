"""C: call_later cancels the reader"""


async def generate_with_timeout(engine, prompt, sampling_params, request_id, timeout_s):
    async def read():
        text = ""
        async for output in engine.generate(prompt, sampling_params, request_id):
            text = output.outputs[0].text
        return text

    reading = asyncio.create_task(read())
    timed_out = False

    def stop():
        nonlocal timed_out
        timed_out = True
        reading.cancel()

    timer = asyncio.get_running_loop().call_later(timeout_s, stop)
    try:
        return await reading
    except asyncio.CancelledError:
        if timed_out:
            raise TimeoutError(f"not done in {timeout_s} s")
        raise
    finally:
        timer.cancel()
        reading.cancel()
