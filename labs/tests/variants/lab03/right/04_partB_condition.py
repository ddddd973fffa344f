"""B: a Condition and a sorted list"""


class PriorityDispatcher:
    def __init__(self, engine, max_in_flight):
        self._engine = engine
        self._limit = max_in_flight
        self._running = 0
        self._numbers = itertools.count()
        self._waiting = []
        self._changed = asyncio.Condition()

    async def submit(self, prompt, sampling_params, request_id, priority=0):
        me = (priority, next(self._numbers))
        self._waiting.append(me)
        try:
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._running < self._limit and min(self._waiting) == me
                )
                self._running += 1
        finally:
            self._waiting.remove(me)
            await self._wake()
        try:
            text = ""
            async for output in self._engine.generate(prompt, sampling_params, request_id):
                text = output.outputs[0].text
            return text
        finally:
            self._running -= 1
            await self._wake()

    async def _wake(self):
        async with self._changed:
            self._changed.notify_all()
