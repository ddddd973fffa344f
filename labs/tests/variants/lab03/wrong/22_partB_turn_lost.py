"""B L3-B-TURN: forgets that its turn may have come when it is cancelled"""


class PriorityDispatcher:
    def __init__(self, engine: AsyncLLMEngine, max_in_flight: int) -> None:
        self._engine = engine
        self._num_free = max_in_flight
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

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
        if self._num_free > 0:
            self._num_free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            raise

    def _give_place(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._num_free += 1
