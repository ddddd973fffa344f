"""B L3-B-SHARED: the waiting ones belong to the class"""


class PriorityDispatcher:
    _running = 0
    _waiting = []

    def __init__(self, engine: AsyncLLMEngine, max_in_flight: int) -> None:
        self._engine = engine
        self._limit = max_in_flight
        self._numbers = itertools.count()

    async def submit(
        self, prompt: str, sampling_params: SamplingParams, request_id: str, priority: int = 0
    ) -> str:
        await self._take_place(priority)
        try:
            text = ""
            stream = self._engine.generate(prompt, sampling_params, request_id)
            async with aclosing(stream) as outputs:
                async for output in outputs:
                    text = output.outputs[0].text
            return text
        finally:
            self._give_place()

    async def _take_place(self, priority: int) -> None:
        if PriorityDispatcher._running < self._limit:
            PriorityDispatcher._running += 1
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and (not turn.cancelled()):
                self._give_place()
            raise

    def _give_place(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        PriorityDispatcher._running -= 1
