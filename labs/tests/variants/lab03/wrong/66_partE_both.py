"""E L3-E-SUM: counts a request as running and waiting"""


class Monitor:
    def __init__(self, engine: AsyncLLMEngine) -> None:
        self._engine = engine
        self._counts = dict.fromkeys(
            ("submitted", "waiting", "running", "completed", "failed", "cancelled"), 0
        )
        self._waiting_s: list[float] = []
        self._ttft_s: list[float] = []
        self._latency_s: list[float] = []

    async def generate(
        self, prompt: str, sampling_params: SamplingParams, request_id: str
    ) -> AsyncIterator[RequestOutput]:
        submitted_at = time.monotonic()
        has_token = False
        self._counts["submitted"] += 1
        self._counts["waiting"] += 1
        state = "waiting"
        ending = "cancelled"
        try:
            stream = self._engine.generate(prompt, sampling_params, request_id)
            async with aclosing(stream) as outputs:
                async for output in outputs:
                    if state == "waiting":
                        self._counts["running"] += 1
                        state = "running"
                    if output.outputs[0].token_ids and (not has_token):
                        has_token = True
                        self._ttft_s.append(time.monotonic() - submitted_at)
                        if output.metrics is not None:
                            queued_s = output.metrics.scheduled_ts - output.metrics.queued_ts
                            self._waiting_s.append(queued_s)
                    if output.finished and output.outputs[0].finish_reason != "abort":
                        ending = "completed"
                        self._latency_s.append(time.monotonic() - submitted_at)
                    yield output
        except Exception:
            ending = "failed"
            raise
        finally:
            self._counts[state] -= 1
            if state == "running":
                self._counts["waiting"] -= 1
            self._counts[ending] += 1

    def snapshot(self) -> Snapshot:
        return Snapshot(
            **self._counts,
            waiting_s=tuple(self._waiting_s),
            ttft_s=tuple(self._ttft_s),
            latency_s=tuple(self._latency_s),
        )
