"""B: a task for each request, started by a pump that ends"""


class PriorityDispatcher:
    def __init__(self, engine, max_in_flight):
        self._engine = engine
        self._max = max_in_flight
        self._tasks = set()
        self._heap = []
        self._numbers = itertools.count()

    async def submit(self, prompt, sampling_params, request_id, priority=0):
        answer = asyncio.get_running_loop().create_future()
        values = (prompt, sampling_params, request_id)
        heapq.heappush(self._heap, (priority, next(self._numbers), values, answer))
        self._pump()
        return await answer

    def _pump(self):
        while self._heap and len(self._tasks) < self._max:
            _, _, values, answer = heapq.heappop(self._heap)
            if answer.done():
                continue
            task = asyncio.create_task(self._run(values, answer))
            self._tasks.add(task)
            answer.add_done_callback(lambda _, task=task: task.cancel())
            task.add_done_callback(self._ended)

    def _ended(self, task):
        self._tasks.discard(task)
        self._pump()

    async def _run(self, values, answer):
        try:
            text = ""
            async for output in self._engine.generate(*values):
                text = output.outputs[0].text
            if not answer.done():
                answer.set_result(text)
        except Exception as error:
            if not answer.done():
                answer.set_exception(error)
