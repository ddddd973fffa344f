"""A stat logger that tests can wait on."""

from __future__ import annotations

import queue

from wheelpit.engine.stats import FinishedRequest, StepRecord


class Watcher:
    """Hears of finished requests in the server's thread, tells of them in the test's."""

    def __init__(self) -> None:
        self._finished: queue.Queue[FinishedRequest] = queue.Queue()

    def on_step(self, record: StepRecord) -> None: ...

    def on_request_finished(self, record: FinishedRequest) -> None:
        self._finished.put(record)

    def next(self) -> FinishedRequest:
        return self._finished.get(timeout=60)

    def is_empty(self) -> bool:
        """True when every request that ended was asked for."""
        return self._finished.empty()
