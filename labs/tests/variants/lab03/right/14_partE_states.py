"""E: keeps a state for each request and counts them in snapshot"""


class Monitor:
    def __init__(self, engine):
        self._engine = engine
        self._requests = []

    async def generate(self, prompt, sampling_params, request_id):
        began = time.perf_counter()
        request = {"state": "waiting"}
        self._requests.append(request)
        try:
            async for output in self._engine.generate(prompt, sampling_params, request_id):
                if request["state"] == "waiting":
                    request["state"] = "running"
                if output.outputs[0].token_ids and "ttft_s" not in request:
                    request["ttft_s"] = time.perf_counter() - began
                    if output.metrics:
                        metrics = output.metrics
                        request["waiting_s"] = metrics.scheduled_ts - metrics.queued_ts
                if output.finished:
                    is_aborted = output.outputs[0].finish_reason == "abort"
                    request["state"] = "cancelled" if is_aborted else "completed"
                    if not is_aborted:
                        request["latency_s"] = time.perf_counter() - began
                yield output
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException:
            request["state"] = "failed"
            raise
        finally:
            if request["state"] in ("waiting", "running"):
                request["state"] = "cancelled"

    def snapshot(self):
        states = [request["state"] for request in self._requests]
        names = ("waiting", "running", "completed", "failed", "cancelled")
        times = {
            name: tuple(request[name] for request in self._requests if name in request)
            for name in ("waiting_s", "ttft_s", "latency_s")
        }
        return Snapshot(len(states), *(states.count(name) for name in names), **times)
