"""Streams that outlive their connection: nothing is missed, nothing comes twice, nothing stays."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.server.conftest import GatedServer, MakeGated, MakeServer, RunningServer
from tests.server.raw_client import FIRST_TOKEN, cancel, stream
from wheelpit.server import resumable
from wheelpit.server.app import service_of
from wheelpit.server.auth import ADMIN, ANYBODY, Principal
from wheelpit.server.errors import UnknownRequestError
from wheelpit.server.options import ServerOptions
from wheelpit.server.resumable import EventLog, ResumableStreams

ASK = {"x-resumable": "1", "x-request-id": "mine"}


def streams(running: RunningServer) -> ResumableStreams:
    return service_of(running._server.app).streams


def resume(running: RunningServer, last_id: int | str, name: str = "mine", **headers: str) -> Any:
    """Everything after an event, to the end."""
    more = {"last-event-id": str(last_id), **headers}
    return running.client.get(f"/v1/streams/{name}", headers=more)


def events_of(text: str) -> list[tuple[int, str]]:
    """(id, data) of each whole event; what has no id, or is cut off, is left out."""
    found = re.findall(r"id: (\d+)\ndata: (.*)\n\n", text)
    return [(int(number), data) for number, data in found]


def tokens_of(events: list[tuple[int, str]]) -> list[int]:
    chunks = [json.loads(data) for _, data in events if data != "[DONE]"]
    return [
        token
        for chunk in chunks
        for choice in chunk["choices"]
        for token in choice.get("token_ids", ())
    ]


def wait_until_nothing_is_kept(running: RunningServer) -> None:
    running.wait_until(lambda: len(streams(running)) == 0)


@pytest.fixture
def gated(make_gated: MakeGated) -> GatedServer:
    return make_gated(ServerOptions(resume_window_s=3600.0))


def test_events_are_numbered_for_those_who_asked(gated: GatedServer) -> None:
    running = gated.server
    gated.gate.open()
    with stream(running, ASK, max_tokens=5) as client:
        answer = client.answer()
    assert answer.headers["x-resumable"] == "3600"
    events = events_of(answer.text)
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert events[-1][1] == "[DONE]"
    # Every event is one: nothing but comments has no number.
    rest = re.sub(r"id: \d+\ndata: .*\n\n", "", answer.text)
    assert re.sub(r": .*\n\n", "", rest) == ""
    with stream(running, max_tokens=5) as client:
        plain = client.answer()
    assert "x-resumable" not in plain.headers
    assert not events_of(plain.text)
    assert resume(running, 0, plain.headers["x-request-id"]).status_code == 404


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_client_that_comes_back_misses_nothing(gated: GatedServer, path: str) -> None:
    """It goes on while nobody listens; then comes what was missed, and the rest, once."""
    running = gated.server
    prompt = {"prompt": "hi", "messages": [{"role": "user", "content": "hi"}]}
    more = {"max_tokens": 30, "ignore_eos": True, "stream": True, "return_token_ids": True}
    gated.gate.step(8)
    with running.client.stream("POST", path, json={**prompt, **more}, headers=ASK) as response:
        text = ""
        for piece in response.iter_text():
            text += piece
            if len(tokens_of(events_of(text))) >= 4:
                break
    before = events_of(text)
    gated.gate.step(8)
    log = running.on_loop(lambda: next(iter(streams(running)._kept)))
    running.wait_until(lambda: log.num_events > before[-1][0])
    gated.gate.open()
    after = resume(running, before[-1][0])
    assert after.status_code == 200
    everything = before + events_of(after.text)
    assert [number for number, _ in everything] == list(range(1, len(everything) + 1))
    assert len(tokens_of(everything)) == 30
    # The same once more, from the start and from elsewhere: it is all still there.
    for last in (0, 3, len(everything) - 1):
        assert events_of(resume(running, last).text) == everything[last:]
    last = resume(running, len(everything))
    assert (last.status_code, events_of(last.text)) == (200, [])


def test_who_did_not_ask_is_cancelled_by_leaving(gated: GatedServer) -> None:
    running = gated.server
    gated.gate.step(1)
    with stream(running, {"x-request-id": "mine"}) as client:
        client.read_until(FIRST_TOKEN)
    assert gated.watcher.next().finish_reason == "abort"
    assert resume(running, 0).status_code == 404


def test_after_the_window_the_request_is_cancelled_and_forgotten(make_gated: MakeGated) -> None:
    gated = make_gated(ServerOptions(resume_window_s=0.05))
    running = gated.server
    gated.gate.step(1)
    with stream(running, ASK) as client:
        client.read_until(FIRST_TOKEN)
        assert running.on_loop(lambda: len(streams(running))) == 1
    assert gated.watcher.next().finish_reason == "abort"
    wait_until_nothing_is_kept(running)
    assert resume(running, 0).status_code == 404
    assert running.on_loop(lambda: len(running.live)) == 0
    # A stream that came to its end goes after the window, too.
    gated.gate.open()
    with stream(running, ASK, max_tokens=3) as client:
        assert "[DONE]" in client.answer().text
    wait_until_nothing_is_kept(running)


def test_two_may_listen_and_one_may_leave(gated: GatedServer) -> None:
    """As when the server has not noticed yet that the first connection is gone."""
    running = gated.server
    gated.gate.step(1)
    with stream(running, ASK, max_tokens=10) as first:
        first.read_until(FIRST_TOKEN)
        with running.client.stream("GET", "/v1/streams/mine") as second:
            pieces = second.iter_text()
            text = next(pieces)
            first.leave()
            gated.gate.open()
            text += "".join(pieces)
    assert len(tokens_of(events_of(text))) == 10


def test_cancelling_from_elsewhere_ends_it_for_all(gated: GatedServer) -> None:
    running = gated.server
    gated.gate.step(1)
    with stream(running, ASK) as client:
        client.read_until(FIRST_TOKEN)
    assert cancel(running, "mine").status_code == 200
    text = resume(running, 0).text
    assert '"finish_reason":"abort"' in text
    assert events_of(text)[-1][1] == "[DONE]"


def test_a_prompt_that_is_refused_has_a_status_as_ever(gated: GatedServer) -> None:
    response = gated.server.post(
        "/v1/completions", {"prompt": "x", "stream": True, "temperature": -1}, **ASK
    )
    assert response.status_code == 400
    assert resume(gated.server, 0).status_code == 400


def test_an_engine_that_dies_for_good_is_an_event(make_server: MakeServer) -> None:
    running = make_server(ServerOptions(), step_ms=10, max_restarts=0)
    with stream(running, ASK) as client:
        client.read_until(FIRST_TOKEN)
        running.on_loop(lambda: running.engine._link._supervisor._on_end("was broken by a test"))
        text = client.answer().text
    assert '"InternalServerError"' in text
    assert text.rstrip().endswith("data: [DONE]")
    running.join()


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "", "9" * 30, "99"])
def test_an_event_that_never_was_is_refused(gated: GatedServer, last: str) -> None:
    with stream(gated.server, ASK):
        gated.server.wait_until(lambda: len(streams(gated.server)) == 1)
        response = resume(gated.server, last)
        assert response.status_code == 400
        assert "Last-Event-ID" in response.text


@pytest.fixture
def keyed(make_gated: MakeGated) -> GatedServer:
    return make_gated(ServerOptions(api_keys=("a", "b"), admin_key="root", resume_window_s=3600.0))


def test_only_who_sent_it_may_resume_it(keyed: GatedServer) -> None:
    running = keyed.server
    keyed.gate.open()
    mine = {"authorization": "Bearer a"}
    with stream(running, {**ASK, **mine}, max_tokens=3) as client:
        wanted = events_of(client.answer().text)
    for name in ("mine", "cmpl-mine"):
        assert resume(running, 0, name).status_code == 401
        theirs = resume(running, 0, name, authorization="Bearer b")
        nothing = resume(running, 0, "nobody", authorization="Bearer b")
        assert theirs.status_code == nothing.status_code == 404
        assert theirs.text.replace(name, "x") == nothing.text.replace("nobody", "x")
        for key in ("a", "root"):
            assert events_of(resume(running, 0, name, authorization=f"Bearer {key}").text) == wanted


def test_without_a_window_nothing_is_resumable(make_server: MakeServer) -> None:
    running = make_server(ServerOptions(resume_window_s=0.0))
    response = running.post("/v1/completions", {"prompt": "x", "stream": True}, **ASK)
    assert "x-resumable" not in response.headers
    assert resume(running, 0).status_code == 404


def test_a_server_that_ends_leaves_no_producer_behind(make_gated: MakeGated) -> None:
    gated = make_gated(ServerOptions(resume_window_s=3600.0))
    gated.gate.step(1)
    with stream(gated.server, ASK) as client:
        client.read_until(FIRST_TOKEN)
    gated.server.stop()
    assert len(streams(gated.server)) == 0


# --- the registry by itself


def new_log(name: str, owner: Principal = ANYBODY) -> EventLog:
    return EventLog(f"cmpl-{name}", owner, 3600.0, lambda: b"")


async def test_ended_logs_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "MAX_ENDED_BYTES", 10_000)
    kept = ResumableStreams()

    async def produce(log: EventLog) -> None:
        log.add(b"data: " + b"x" * 1000 + b"\n\n")

    for number in range(100):
        log = new_log(str(number))
        kept.start(log, produce)
        with kept.reading(log):
            assert [piece async for piece in log.follow(0)]
        assert kept.num_bytes <= 10_000 + 1100
    assert kept.find("99", ANYBODY).num_events == 1
    with pytest.raises(UnknownRequestError):
        kept.find("0", ANYBODY)
    await kept.close()
    assert (len(kept), kept.num_bytes) == (0, 0)


async def test_of_two_with_one_id_each_owner_finds_the_newest_of_theirs() -> None:
    kept = ResumableStreams()

    async def produce(log: EventLog) -> None: ...

    logs = [new_log("x", Principal(name)) for name in ("a", "a", "b")]
    for log in logs:
        kept.start(log, produce)
    assert kept.find("x", Principal("a")) is logs[1]
    assert kept.find("cmpl-x", Principal("b")) is logs[2]
    assert kept.find("x", ADMIN) is logs[2]
    with pytest.raises(UnknownRequestError):
        kept.find("x", Principal("c"))
    await kept.close()
