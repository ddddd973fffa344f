"""A: a queue between reader and caller"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    news = asyncio.Queue()

    async def read():
        try:
            async for output in engine.generate(prompt, sampling_params, request_id):
                news.put_nowait(output.outputs[0].text)
            news.put_nowait(None)
        except Exception as error:
            news.put_nowait(error)

    async def watch():
        await stop.wait()
        news.put_nowait(False)

    tasks = [asyncio.create_task(read()), asyncio.create_task(watch())]
    text = ""
    try:
        while True:
            new = await news.get()
            if isinstance(new, Exception):
                raise new
            if new is None or new is False:
                return text, new is None
            text = new
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
