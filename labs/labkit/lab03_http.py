"""What Lab 03's part D is graded by: requests to the learner's app, made by hand."""

from __future__ import annotations

import asyncio
import inspect
import re
from typing import Any

from labkit.asgi import Exchange
from labkit.feedback import Failure, Shown, texts_of
from labkit.lab import Lab
from labkit.probe import Probe
from labkit.scripted import ScriptedEngine, Step
from labkit.stacks import place_of_error
from labkit.stand_ins import Record

try:
    # Here, before the learner's file does it: importing takes long, and nobody is to blame.
    import fastapi
    import fastapi.responses
except ImportError:
    fastapi = None

HOW_STREAMING = "A StreamingResponse ends its generator when the client leaves; what the generator \
started must end with it"
HOW_WHOLE = (
    "Nobody tells a handler by itself: wait for the answer and for request.receive() to give \
http.disconnect, whichever is first"
)

BAD_BODIES = (
    ("no prompt", {"max_tokens": 5}),
    ("prompt is a number", {"prompt": 17}),
    ("max_tokens is no number", {"prompt": "Hello", "max_tokens": "many"}),
    ("max_tokens is 0", {"prompt": "Hello", "max_tokens": 0}),
    ("max_tokens is -3", {"prompt": "Hello", "max_tokens": -3}),
    ("a list", ["Hello"]),
    ("not JSON", b'{"prompt": '),
)


class Site:
    """The learner's app over a scripted engine."""

    def __init__(self, lab: Lab, record: Record, barrier: int = 0, **scripts: list[Step]) -> None:
        """record: what became of the engine classes; the app needs none of them."""
        self.engine = ScriptedEngine(scripts)
        self.probe = Probe(self.engine, barrier)
        self._record = record
        self._owners = lab.owners
        self.app = lab.function("create_app")(self.probe)
        if inspect.iscoroutine(self.app):
            self.app.close()
        if not isinstance(self.app, fastapi.FastAPI):
            raise Failure("L3-D-NOTAPP", {"you returned": self.app})

    def post(self, body: Any) -> Exchange:
        return Exchange(self.app, "POST", "/generate", body)

    async def get(self, path: str) -> Exchange:
        exchange = await Exchange(self.app, "GET", path).ended()
        self.check(exchange, "GET", path)
        return exchange

    def check(self, exchange: Exchange, method: str = "POST", path: str = "/generate") -> None:
        """Is this a good answer, from the one engine?"""
        self.check_engine()
        values = {"method": method, "path": path, "status": exchange.status}
        if exchange.status in (404, 405):
            raise Failure("L3-D-ROUTE", **values)
        if exchange.error is not None:
            if place_of_error(exchange.error, self._owners) is None:
                raise Failure("L3-D-RETURNED", {"FastAPI said": exchange.error}, **values)
            raise exchange.error
        if exchange.status == 422 and '"query"' in exchange.text:
            raise Failure("L3-D-QUERY", {"it said": exchange.text})
        if exchange.status != 200:
            raise Failure("L3-D-STATUS", {"it said": exchange.text}, want=200, **values)

    def check_engine(self) -> None:
        """All requests must be the given engine's, on one loop."""
        if self._record.calls or self._record.offline:
            raise Failure("L3-D-NEWENGINE")
        if elsewhere := self.probe.loops - {asyncio.get_running_loop()}:
            raise Failure("L3-D-LOOPS", num=len(elsewhere))

    def check_text(self, exchange: Exchange, want: str) -> None:
        self.check(exchange)
        answer = exchange.json()
        if not isinstance(answer, dict) or answer.get("text") != want:
            raise Failure("L3-D-TEXT", {"it answered": exchange.text, "the text": want})

    def check_pieces(self, exchange: Exchange, want: str) -> None:
        self.check(exchange)
        if isinstance(exchange.json(), dict):
            raise Failure("L3-D-NOTSTREAM", {"it answered": exchange.text})
        if exchange.text != want:
            sent = texts_of([piece.decode("utf-8", "replace") for piece in exchange.pieces])
            raise Failure("L3-D-PIECES", {"you sent": sent, "the text": want})

    async def check_metrics(self, when: str, total: int, running: int) -> None:
        exchange = await self.get("/metrics")
        shown = {"when": Shown(when), "/metrics says": exchange.text}
        found = dict(re.findall(r"^(requests_\w+)(?:\{\})? (\d+)(?:\.0)?$", exchange.text, re.M))
        if not {"requests_total", "requests_running"} <= found.keys():
            raise Failure("L3-D-METRICS", shown)
        if int(found["requests_total"]) != total:
            raise Failure("L3-D-TOTAL", shown, got=found["requests_total"], want=total)
        if int(found["requests_running"]) != running:
            raise Failure("L3-D-GAUGE", shown, got=found["requests_running"], want=running)


def check_bad_body(site: Site, exchange: Exchange, name: str) -> None:
    """A client's mistake must be told to the client, and cost the engine nothing."""
    shown = {"the body": Shown(name), "it answered": exchange.text}
    site.check_engine()
    check_no_traceback(exchange)
    if exchange.status in (404, 405):
        raise Failure("L3-D-ROUTE", method="POST", path="/generate", status=exchange.status)
    if exchange.status is None or not 400 <= exchange.status < 500:
        if exchange.error is not None:
            shown["it raised"] = exchange.error
        raise Failure("L3-D-BADINPUT", shown, status=exchange.status)
    if any(call.started for call in site.probe.calls):
        raise Failure("L3-D-REACHED", shown)


def check_no_traceback(exchange: Exchange) -> None:
    if re.search(r'Traceback|File \\?".*\.py|line \d+, in ', exchange.text):
        raise Failure("L3-D-TRACEBACK", {"it answered": exchange.text})


def need_fastapi(lab: Lab) -> None:
    """Skip the part, with the reason, where FastAPI is not installed."""
    if fastapi is None:
        lab.pass_over("it needs FastAPI: pip install fastapi")
