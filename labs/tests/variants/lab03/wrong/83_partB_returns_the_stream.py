"""B L3-B-TEXT: returns the stream, unread"""


class PriorityDispatcher:
    def __init__(self, engine, max_in_flight):
        self.engine = engine
        self.semaphore = asyncio.Semaphore(max_in_flight)

    async def submit(self, prompt, sampling_params, request_id, priority=0):
        async with self.semaphore:
            return self.engine.generate(prompt, sampling_params, request_id)
