"""B L3-B-TEXT: whoever gets the place runs the most urgent prompt, and returns its text"""


class PriorityDispatcher:
    def __init__(self, engine, max_in_flight):
        self.engine = engine
        self.semaphore = asyncio.Semaphore(max_in_flight)
        self.waiting = []
        self.n = 0

    async def submit(self, prompt, sampling_params, request_id, priority=0):
        self.n += 1
        heapq.heappush(self.waiting, (priority, self.n, prompt, sampling_params, request_id))
        async with self.semaphore:
            _, _, *values = heapq.heappop(self.waiting)
            text = ""
            async for output in self.engine.generate(*values):
                text = output.outputs[0].text
            return text
