"""B: looks every 10 ms whether it is its turn"""


class PriorityDispatcher:
    def __init__(self, engine, max_in_flight):
        self.engine = engine
        self.limit = max_in_flight
        self.running = 0
        self.count = 0
        self.waiting = []

    async def submit(self, prompt, sampling_params, request_id, priority=0):
        self.count += 1
        me = (priority, self.count)
        self.waiting.append(me)
        try:
            while self.running >= self.limit or min(self.waiting) != me:
                await asyncio.sleep(0.01)
        finally:
            self.waiting.remove(me)
        self.running += 1
        try:
            text = ""
            async for output in self.engine.generate(prompt, sampling_params, request_id):
                text = output.outputs[0].text
            return text
        finally:
            self.running -= 1
