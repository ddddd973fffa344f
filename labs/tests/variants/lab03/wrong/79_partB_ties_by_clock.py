"""B L3-B-CLOCK: ties by the clock"""


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
        heapq.heappush(self._waiting, (priority, time.monotonic(), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_place()
            raise

    def _give_place(self):
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._num_free += 1
