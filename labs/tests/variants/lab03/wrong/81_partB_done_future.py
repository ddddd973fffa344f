"""B L3-B-DONE: sets the result of a future that was cancelled"""


class PriorityDispatcher:
    def __init__(self, engine, max_in_flight):
        self._engine = engine
        self._num_free = max_in_flight
        self._numbers = itertools.count()
        self._waiting = []

    async def submit(self, prompt, sampling_params, request_id, priority=0):
        await self._take_place(priority)
        try:
            text = ""
            async for output in self._engine.generate(prompt, sampling_params, request_id):
                text = output.outputs[0].text
            return text
        finally:
            self._give_place()

    async def _take_place(self, priority):
        if self._num_free > 0:
            self._num_free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_place()
            raise

    def _give_place(self):
        if self._waiting:
            heapq.heappop(self._waiting)[2].set_result(None)
        else:
            self._num_free += 1
