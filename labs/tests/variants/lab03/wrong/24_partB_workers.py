"""B LAB-STRAY: workers that never end"""


class PriorityDispatcher:
    def __init__(self, engine, max_in_flight):
        self._engine = engine
        self._queue = asyncio.PriorityQueue()
        self._numbers = itertools.count()
        self._workers = [asyncio.create_task(self._work()) for _ in range(max_in_flight)]

    async def submit(self, prompt, sampling_params, request_id, priority=0):
        answer = asyncio.get_running_loop().create_future()
        values = (prompt, sampling_params, request_id)
        self._queue.put_nowait((priority, next(self._numbers), values, answer))
        return await answer

    async def _work(self):
        while True:
            _, _, values, answer = await self._queue.get()
            text = ""
            async for output in self._engine.generate(*values):
                text = output.outputs[0].text
            if not answer.done():
                answer.set_result(text)
