"""C L3-C-LATER: never calls its timer off"""


async def generate_with_timeout(engine, prompt, sampling_params, request_id, timeout_s):
    task = asyncio.current_task()
    is_late = False

    def cancel():
        nonlocal is_late
        is_late = True
        task.cancel()

    asyncio.get_running_loop().call_later(timeout_s, cancel)
    text = ""
    try:
        async with aclosing(engine.generate(prompt, sampling_params, request_id)) as stream:
            async for output in stream:
                text = output.outputs[0].text
    except asyncio.CancelledError:
        if is_late:
            raise TimeoutError from None
        raise
    return text
