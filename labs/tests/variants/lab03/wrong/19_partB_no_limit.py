"""B L3-B-LIMIT: passes the priority on to the engine and limits nothing"""


class PriorityDispatcher:
    def __init__(self, engine, max_in_flight):
        self._engine = engine

    async def submit(self, prompt, sampling_params, request_id, priority=0):
        text = ""
        stream = self._engine.generate(prompt, sampling_params, request_id, priority=priority)
        async for output in stream:
            text = output.outputs[0].text
        return text
