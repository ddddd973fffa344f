"""B L3-B-ASLEEP: wakes any one of those that wait"""


class PriorityDispatcher:
    def __init__(self, engine, max_in_flight):
        self.engine = engine
        self.max = max_in_flight
        self.running = 0
        self.waiting = []
        self.n = 0
        self.cond = asyncio.Condition()

    async def submit(self, prompt, sampling_params, request_id, priority=0):
        async with self.cond:
            self.n += 1
            me = (priority, self.n)
            self.waiting.append(me)
            while self.running >= self.max or min(self.waiting) != me:
                await self.cond.wait()
            self.waiting.remove(me)
            self.running += 1
        try:
            text = ""
            async for output in self.engine.generate(prompt, sampling_params, request_id):
                text = output.outputs[0].text
            return text
        finally:
            async with self.cond:
                self.running -= 1
                self.cond.notify()
