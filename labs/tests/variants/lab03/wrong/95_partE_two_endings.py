"""E L3-E-SUM: a failed request is cancelled as well"""


class Monitor:
    def __init__(self, engine):
        self.engine = engine
        self.submitted = self.waiting = self.running = 0
        self.completed = self.failed = self.cancelled = 0
        self.waiting_s, self.ttft_s, self.latency_s = [], [], []

    async def generate(self, prompt, sampling_params, request_id):
        self.submitted += 1
        self.waiting += 1
        began = time.monotonic()
        is_first, is_finished = True, False
        try:
            async for output in self.engine.generate(prompt, sampling_params, request_id):
                if is_first:
                    is_first = False
                    self.waiting -= 1
                    self.running += 1
                    self.ttft_s.append(time.monotonic() - began)
                is_finished = output.finished
                yield output
        except Exception:
            self.failed += 1
            raise
        finally:
            if is_first:
                self.waiting -= 1
            else:
                self.running -= 1
            if is_finished:
                self.completed += 1
            else:
                self.cancelled += 1

    def snapshot(self):
        return Snapshot(
            *(self.submitted, self.waiting, self.running),
            *(self.completed, self.failed, self.cancelled),
            *(tuple(self.waiting_s), tuple(self.ttft_s), tuple(self.latency_s)),
        )
