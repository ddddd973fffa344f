"""E: adds up in snapshot what each request says of itself"""


@dataclass
class _Watch:
    began: float
    state: str = "waiting"
    waiting: float | None = None
    ttft: float | None = None
    latency: float | None = None


class Monitor:
    def __init__(self, engine):
        self.engine = engine
        self.watches = []

    async def generate(self, prompt, sampling_params, request_id):
        clock = asyncio.get_running_loop().time
        watch = _Watch(clock())
        self.watches.append(watch)
        try:
            async with aclosing(
                self.engine.generate(prompt, sampling_params, request_id)
            ) as stream:
                async for output in stream:
                    completion = output.outputs[0]
                    if watch.state == "waiting":
                        watch.state = "running"
                    if completion.token_ids and watch.ttft is None:
                        watch.ttft = clock() - watch.began
                        if (metrics := output.metrics) is not None:
                            watch.waiting = metrics.scheduled_ts - metrics.queued_ts
                    if output.finished:
                        watch.state = (
                            "cancelled" if completion.finish_reason == "abort" else "completed"
                        )
                        if watch.state == "completed":
                            watch.latency = clock() - watch.began
                    yield output
        except Exception:
            watch.state = "failed"
            raise
        finally:
            if watch.state in ("waiting", "running"):
                watch.state = "cancelled"

    def snapshot(self):
        def count(state):
            return sum(watch.state == state for watch in self.watches)

        def times(name):
            found = [getattr(watch, name) for watch in self.watches]
            return tuple(time for time in found if time is not None)

        return Snapshot(
            submitted=len(self.watches),
            waiting=count("waiting"),
            running=count("running"),
            completed=count("completed"),
            failed=count("failed"),
            cancelled=count("cancelled"),
            waiting_s=times("waiting"),
            ttft_s=times("ttft"),
            latency_s=times("latency"),
        )
