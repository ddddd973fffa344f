"""B: an asyncio.PriorityQueue for the turns"""


class PriorityDispatcher:
    def __init__(self, engine, max_in_flight):
        self._engine = engine
        self._free = max_in_flight
        self._tickets = itertools.count()
        self._queue = asyncio.PriorityQueue()

    def _next(self):
        while self._free and not self._queue.empty():
            _, _, turn = self._queue.get_nowait()
            if not turn.cancelled():
                self._free -= 1
                turn.set_result(None)

    async def submit(self, prompt, sampling_params, request_id, priority=0):
        turn = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((priority, next(self._tickets), turn))
        self._next()
        try:
            await turn
            chunks = ""
            async for output in self._engine.generate(prompt, sampling_params, request_id):
                chunks = output.outputs[0].text
            return chunks
        finally:
            if turn.done() and not turn.cancelled():
                self._free += 1
                self._next()
            else:
                turn.cancel()
