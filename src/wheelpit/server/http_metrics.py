"""Count HTTP requests by route and status class, as prometheus-fastapi-instrumentator does."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wheelpit.server.auth import OPEN_PATHS
from wheelpit.server.histogram import Histogram
from wheelpit.server.root_path import route_path

UNCOUNTED = OPEN_PATHS | {"/metrics", "/load"}
DURATION_BOUNDS_S = (0.1, 0.5, 1.0, 5.0, 30.0, 120.0)
METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"})

Route = tuple[str, str]
"""(path template, method): both from short lists, so that clients cannot make series."""


class HttpMetrics(Collector):
    """The counts. Written only by `CountRequests`, on the event loop's thread."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], int] = {}
        self._durations_s: dict[Route, Histogram] = {}

    def add(self, route: Route, status: int, duration_s: float) -> None:
        key = (*route, f"{status // 100}xx")
        self._counts[key] = self._counts.get(key, 0) + 1
        if route not in self._durations_s:
            self._durations_s[route] = Histogram(DURATION_BOUNDS_S)
        self._durations_s[route].observe(duration_s)

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "http_requests",
            "HTTP requests by route, method and status class.",
            labels=["handler", "method", "status"],
        )
        for key, count in self._counts.items():
            requests.add_metric(key, count)
        yield requests
        durations = HistogramMetricFamily(
            "http_request_duration_seconds",
            "From a request's first byte to its answer's last.",
            labels=["handler", "method"],
        )
        for route, histogram in self._durations_s.items():
            durations.add_metric(route, histogram.cumulative, sum_value=histogram.sum)
        yield durations


class CountRequests:
    """ASGI middleware that feeds `HttpMetrics`."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or route_path(scope) in UNCOUNTED:
            await self._app(scope, receive, send)
            return
        # Of a client that left before anything was sent.
        status = 499
        started = time.monotonic()

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "none")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.add((path, method), status, time.monotonic() - started)
