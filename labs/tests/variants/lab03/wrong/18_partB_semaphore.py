"""B L3-B-FIFO: a semaphore"""


class PriorityDispatcher:
    def __init__(self, engine, max_in_flight):
        self._engine = engine
        self._places = asyncio.Semaphore(max_in_flight)

    async def submit(self, prompt, sampling_params, request_id, priority=0):
        async with self._places:
            text = ""
            async for output in self._engine.generate(prompt, sampling_params, request_id):
                text = output.outputs[0].text
            return text
