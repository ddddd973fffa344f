"""B: an Event for each waiting one"""


class PriorityDispatcher:
    def __init__(self, engine, max_in_flight):
        self._engine = engine
        self._free = max_in_flight
        self._count = 0
        self._queue = []

    async def submit(self, prompt, sampling_params, request_id, priority=0):
        self._count += 1
        entry = [priority, self._count, asyncio.Event()]
        self._queue.append(entry)
        self._start_next()
        try:
            await entry[2].wait()
            text = ""
            async for output in self._engine.generate(prompt, sampling_params, request_id):
                text = output.outputs[0].text
            return text
        finally:
            if entry in self._queue:
                self._queue.remove(entry)
            else:
                self._free += 1
            self._start_next()

    def _start_next(self):
        while self._free and self._queue:
            self._queue.sort(key=lambda entry: entry[:2])
            self._free -= 1
            self._queue.pop(0)[2].set()
