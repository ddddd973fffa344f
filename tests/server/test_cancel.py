"""Requests are cancelled from outside by their ids, and keep what there is of their answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import GatedServer, MakeGated, RunningServer
from tests.server.raw_client import FIRST_TOKEN, RawClient, cancel, chat, complete, stream
from tests.server.sse_reader import events_of, text_of
from wheelpit.server.options import ServerOptions

TENANTS = """
[tenants.red]
api_keys = ["red-key"]
[tenants.blue]
api_keys = ["blue-key"]
"""


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def gated(make_gated: MakeGated) -> GatedServer:
    """One seat."""
    return make_gated(max_num_seqs=1)


@pytest.mark.parametrize("name", ["mine", "cmpl-mine"])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_running_stream_ends_with_abort_and_done(
    gated: GatedServer, name: str, method: str
) -> None:
    running = gated.server
    gated.gate.step(3)
    with stream(running, {"x-request-id": "mine"}) as client:
        client.read_until(FIRST_TOKEN)
        path = f"/v1/requests/{name}" + ("/cancel" if method == "POST" else "")
        response = running.client.request(method, path)
        assert response.status_code == 200
        assert response.json() == {
            "id": "cmpl-mine",
            "object": "request",
            "status": "cancelled",
            "num_cancelled": 1,
        }
        events = events_of(client.answer())
    assert text_of(events)
    assert events[-1]["choices"][0]["finish_reason"] == "abort"
    assert events[-1]["choices"][0]["stop_reason"] is None
    record = gated.watcher.next()
    assert (record.request_id, record.finish_reason) == ("cmpl-mine-0", "abort")
    # The step in flight ends, and the one after it has a seat for somebody else.
    with stream(running) as other:
        gated.gate.step(2)
        other.read_until(FIRST_TOKEN)


def test_a_running_whole_answer_is_what_there_is(gated: GatedServer) -> None:
    running = gated.server
    gated.gate.step(3)
    with chat(running, request_id="mine") as client:
        running.wait_until(lambda: running.engine.stats().num_generation_tokens == 3)
        assert cancel(running, "chatcmpl-mine").status_code == 200
        response = client.answer()
    assert response.status_code == 200
    answer = response.json()
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "abort"
    assert len(answer["choices"][0]["message"]["content"]) > 0


@pytest.mark.parametrize("is_stream", [False, True])
def test_one_that_waits_for_a_seat_has_an_empty_answer(gated: GatedServer, is_stream: bool) -> None:
    running = gated.server
    gated.gate.step(1)
    with stream(running) as holder:
        holder.read_until(FIRST_TOKEN)
        send = stream if is_stream else complete
        with send(running, {"x-request-id": "mine"}) as client:
            running.wait_until(lambda: running.engine.stats().num_requests == 2)
            assert cancel(running, "mine").status_code == 200
            response = client.answer()
        choices = events_of(response)[-1]["choices"] if is_stream else response.json()["choices"]
        assert (choices[0]["text"], choices[0]["finish_reason"]) == ("", "abort")
        assert running.on_loop(lambda: running.engine.stats().num_queued) == 0
        # The other one goes on.
        gated.gate.step(1)
        running.wait_until(lambda: running.engine.stats().num_generation_tokens == 2)


def test_all_prompts_of_a_list_and_all_n_are_cancelled_together(gated: GatedServer) -> None:
    """With one seat, one of the six runs and five wait."""
    running = gated.server
    gated.gate.step(1)
    with complete(running, prompt=["a", "b", "c"], n=2, temperature=1, request_id="mine") as client:
        running.wait_until(lambda: running.engine.stats().num_generation_tokens == 1)
        assert cancel(running, "mine").json()["num_cancelled"] == 1
        choices = client.answer().json()["choices"]
    assert [choice["index"] for choice in choices] == list(range(6))
    assert {choice["finish_reason"] for choice in choices} == {"abort"}
    assert {gated.watcher.next().finish_reason for _ in range(3)} == {"abort"}
    assert running.on_loop(lambda: len(running.live)) == 0


def test_logprobs_and_echo_of_a_cancelled_request_have_their_shape(gated: GatedServer) -> None:
    running = gated.server
    gated.gate.step(1)
    with stream(running) as holder:
        holder.read_until(FIRST_TOKEN)
        for fields in (
            {"echo": True, "logprobs": 1},
            {"echo": True, "max_tokens": 0, "logprobs": 1},
            {"echo": True, "logprobs": 1, "stream": True},
        ):
            with complete(running, request_id="mine", **fields) as client:
                running.wait_until(lambda: running.engine.stats().num_requests == 2)
                assert cancel(running, "mine").status_code == 200
                response = client.answer()
            assert response.status_code == 200, response.text
            choice = (
                [event["choices"][0] for event in events_of(response)]
                if "stream" in fields
                else response.json()["choices"]
            )
            assert choice[0]["text"] == "hello"
            assert len(choice[0]["logprobs"]["tokens"]) == 5
            assert choice[-1]["finish_reason"] == "abort"


def test_an_unknown_or_finished_request_is_a_404(server: RunningServer) -> None:
    assert server.complete(request_id="past").status_code == 200
    for name in ("past", "cmpl-past", "never", "", "a/b"):
        response = cancel(server, name)
        assert response.status_code == 404, name
        error = response.json()["error"]
        assert (error["type"], error["code"]) == ("NotFoundError", 404)
    assert server.client.delete("/v1/requests/past").status_code == 404


def test_ids_with_slashes_can_be_cancelled(gated: GatedServer) -> None:
    running = gated.server
    with complete(running, {"x-request-id": "team/7/cancel"}) as client:
        running.wait_until(lambda: len(running.live) == 1)
        assert cancel(running, "team/7/cancel").status_code == 200
        assert client.answer().json()["choices"][0]["finish_reason"] == "abort"


def test_a_prefix_that_a_client_chose_itself_is_part_of_its_id(gated: GatedServer) -> None:
    """The id of an answer comes before one that another client chose to look the same."""
    running = gated.server
    with (
        complete(running, {"x-request-id": "x"}) as first,
        complete(running, {"x-request-id": "cmpl-x"}) as second,
    ):
        running.wait_until(lambda: len(running.live) == 2)
        assert cancel(running, "cmpl-x").json()["id"] == "cmpl-x"
        assert first.answer().json()["id"] == "cmpl-x"
        assert cancel(running, "cmpl-x").json()["id"] == "cmpl-cmpl-x"
        assert second.answer().json()["id"] == "cmpl-cmpl-x"


def test_one_id_used_twice_is_cancelled_twice(gated: GatedServer) -> None:
    running = gated.server
    with (
        complete(running, {"x-request-id": "x"}) as first,
        complete(running, {"x-request-id": "x"}) as second,
    ):
        running.wait_until(lambda: len(running.live) == 2)
        assert cancel(running, "x").json()["num_cancelled"] == 2
        for client in (first, second):
            assert client.answer().json()["choices"][0]["finish_reason"] == "abort"


def test_only_its_owner_and_the_admin_may_cancel_a_request(
    make_gated: MakeGated, tmp_path: Path
) -> None:
    """Blue uses the same id as red, and neither can tell that the other one does."""
    path = tmp_path / "tenants.toml"
    path.write_text(TENANTS)
    options = ServerOptions(api_keys=("plain",), admin_key="root")
    gated = make_gated(options, max_num_seqs=1, tenant_config=str(path))
    running = gated.server

    def send(key: str) -> RawClient:
        return complete(running, {"x-request-id": "same", **bearer(key)})

    with send("red-key") as red, send("plain") as plain:
        running.wait_until(lambda: len(running.live) == 2)
        assert cancel(running, "same").status_code == 401
        assert cancel(running, "same", **bearer("blue-key")).status_code == 404
        with send("blue-key") as blue:
            running.wait_until(lambda: len(running.live) == 3)
            assert cancel(running, "same", **bearer("blue-key")).json()["num_cancelled"] == 1
            assert blue.answer().json()["choices"][0]["finish_reason"] == "abort"
        assert running.on_loop(lambda: len(running.live)) == 2
        assert cancel(running, "same", **bearer("red-key")).json()["num_cancelled"] == 1
        assert red.answer().json()["choices"][0]["finish_reason"] == "abort"
        assert cancel(running, "same", **bearer("root")).json()["num_cancelled"] == 1
        assert plain.answer().json()["choices"][0]["finish_reason"] == "abort"


@pytest.mark.parametrize("leaves", [False, True])
def test_one_that_is_being_tokenized_is_ended_as_well(
    gated: GatedServer, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    """The engine never hears of it, and its place in the queue is free at once."""
    running = gated.server
    tokenizer = running.engine.model_config.tokenizer
    encode = tokenizer.encode_async
    waiting: list[Any] = []

    async def encode_later(*arguments: Any) -> list[int]:
        event = asyncio.Event()
        waiting.append(event)
        await event.wait()
        return await encode(*arguments)

    monkeypatch.setattr(tokenizer, "encode_async", encode_later)
    with complete(running, {"x-request-id": "mine"}) as client:
        running.wait_until(lambda: bool(waiting))
        assert running.on_loop(lambda: running.engine.stats().num_queued) == 1
        if leaves:
            client.leave()
        else:
            assert cancel(running, "mine").status_code == 200
        record = gated.watcher.next()
        assert (record.request_id, record.finish_reason) == ("cmpl-mine-0", "abort")
        assert running.on_loop(lambda: running.engine.stats().num_queued) == 0
        running.on_loop(lambda: waiting[0].set())
        if not leaves:
            answer = client.answer().json()
            assert answer["choices"][0]["finish_reason"] == "abort"
            assert answer["usage"]["prompt_tokens"] == 5
    running.wait_until(lambda: len(running.live) == 0)
    assert gated.watcher.is_empty()
    assert running.engine.stats().num_finished == 1


def test_a_client_that_was_cancelled_can_go_on(gated: GatedServer) -> None:
    """The connection stays usable after a cancelled answer."""
    running = gated.server
    gated.gate.step(1)
    body = {"prompt": "x", "max_tokens": 50, "ignore_eos": True, "stream": True}
    headers = {"x-request-id": "mine"}
    with httpx.Client(base_url=running.url, timeout=60) as client:
        with client.stream("POST", "/v1/completions", json=body, headers=headers) as response:
            lines = response.iter_lines()
            next(lines)
            assert cancel(running, "mine").status_code == 200
            assert [line for line in lines if line][-1] == "data: [DONE]"
        gated.gate.open()
        assert client.post("/v1/completions", json={"prompt": "x"}).status_code == 200
