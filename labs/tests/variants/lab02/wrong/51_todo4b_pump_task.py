"""4b L2-4B-LEAK: a background task goes on reading"""


async def stream_text(engine, prompt, sampling_params, request_id):
    queue = asyncio.Queue()

    async def pump():
        num_shown = 0
        async for output in submit_request(engine, prompt, sampling_params, request_id):
            text = output.outputs[0].text
            queue.put_nowait(text[num_shown:])
            num_shown = len(text)
        queue.put_nowait(None)

    task = asyncio.create_task(pump())
    while (piece := await queue.get()) is not None:
        yield piece
    await task
