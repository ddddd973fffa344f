"""Requests that run out of time: 504 if there is nothing yet, else what there is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server.conftest import GatedServer, MakeGated, MakeServer, RunningServer
from tests.server.raw_client import FIRST_TOKEN, complete, stream
from tests.server.scripted_engine import Script, ScriptedEngine, delta
from tests.server.sse_reader import comments_of, events_of, text_of
from wheelpit.request import CompletionOutput, RequestOutput, RequestProgress
from wheelpit.server.options import ServerOptions

SOON_S = 0.05
"""For what cannot happen in time, however slow the machine is."""


@pytest.fixture
def gated(make_gated: MakeGated) -> GatedServer:
    """One seat; streams are silent until they have a token."""
    return make_gated(ServerOptions(keep_alive_s=0), max_num_seqs=1)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("prompt", ["x", ["x", "y", "z"]])
def test_who_does_not_start_in_time_gets_504(
    gated: GatedServer, is_stream: bool, prompt: Any
) -> None:
    running = gated.server
    gated.gate.step(1)
    with stream(running) as holder:
        holder.read_until(FIRST_TOKEN)
        response = running.complete(
            prompt=prompt, stream=is_stream, queue_timeout=SOON_S, request_id="late"
        )
        assert response.status_code == 504
        assert response.headers["x-request-id"] == "late"
        # OpenAI's clients send a 5xx again, unless they are told not to.
        assert response.headers["x-should-retry"] == "false"
        error = response.json()["error"]
        assert (error["type"], error["code"]) == ("GatewayTimeoutError", 504)
        assert error["reason"] == "queue_timeout"
        for _ in range(len(prompt)):
            record = gated.watcher.next()
            assert (record.finish_reason, record.stop_reason) == ("abort", "queue_timeout")
        assert running.on_loop(lambda: running.engine.stats().num_queued) == 0
        text = running.metrics()
        kind = {"name": "wheelpit:request_timeouts_total", "kind": "queue_timeout"}
        assert running.metric(text, **kind) == len(prompt)
        aborted = {"name": "wheelpit:request_success_total", "finished_reason": "abort"}
        assert running.metric(text, **aborted) == len(prompt)


@pytest.mark.parametrize("name", ["ttft_timeout", "timeout"])
def test_who_runs_but_has_no_token_in_time_gets_504(gated: GatedServer, name: str) -> None:
    response = gated.server.chat(**{name: SOON_S})
    assert response.status_code == 504
    assert response.json()["error"]["reason"] == name
    assert gated.watcher.next().stop_reason == name


def test_tokens_that_came_in_time_are_the_answer(gated: GatedServer) -> None:
    gated.gate.step(2)
    response = gated.server.complete(max_tokens=9, ignore_eos=True, timeout=2.0)
    assert response.status_code == 200
    answer = response.json()
    assert answer["usage"]["completion_tokens"] == 2
    choice = answer["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("abort", "timeout")
    assert gated.watcher.next().num_generation_tokens == 2


@pytest.mark.parametrize("name", ["timeout", "queue_timeout", "ttft_timeout"])
def test_the_server_has_defaults_and_a_request_its_own(make_gated: MakeGated, name: str) -> None:
    gated = make_gated(max_num_seqs=1, **{f"default_{name}": SOON_S})
    running = gated.server
    gated.gate.step(1)
    with complete(running, timeout=60, queue_timeout=60, ttft_timeout=60):
        running.wait_until(lambda: running.engine.stats().num_generation_tokens == 1)
        response = running.complete()
        assert response.status_code == 504
        assert response.json()["error"]["reason"] == name
        assert gated.watcher.next().stop_reason == name
        # The holder has its own time, and sits on.
        assert running.on_loop(lambda: len(running.live)) == 1


@pytest.mark.parametrize("name", ["timeout", "queue_timeout", "ttft_timeout"])
@pytest.mark.parametrize("value", [0, -1, "soon", True, 1e400])
def test_a_time_that_is_none_is_a_400_that_names_the_field(
    server: RunningServer, name: str, value: Any
) -> None:
    data = f'{{"prompt": "x", "{name}": {"1e400" if value == 1e400 else repr(value)}}}'
    data = data.replace("'", '"').replace("True", "true")
    headers = {"content-type": "application/json"}
    response = server.client.post("/v1/completions", content=data, headers=headers)
    assert response.status_code == 400, response.text
    if value != 1e400:
        assert response.json()["error"]["param"] == name


def test_openais_client_does_not_try_again(gated: GatedServer) -> None:
    running = gated.server
    with (
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=5) as client,
        pytest.raises(openai.InternalServerError) as raised,
    ):
        client.completions.create(model="tiny", prompt="x", extra_body={"ttft_timeout": SOON_S})
    assert raised.value.status_code == 504
    assert gated.watcher.next().stop_reason == "ttft_timeout"
    assert running.engine.stats().num_finished == 1


# --- what the engine says, and what becomes of it


Make = Callable[..., RunningServer]


@pytest.fixture
def scripted(make_server: MakeServer, model_folder: Path) -> Make:
    def make(script: Script, options: ServerOptions | None = None) -> RunningServer:
        return make_server(options, engine=ScriptedEngine(model_folder, script))

    return make


def late(stop_reason: str, text: str = "", *token_ids: int) -> RequestOutput:
    """The last output of a request that missed a deadline."""
    completion = CompletionOutput(0, text, list(token_ids), None, None, "abort", stop_reason)
    return RequestOutput("r", "p", [5], None, [completion], True)


async def has_two_tokens() -> AsyncGenerator[RequestOutput, None]:
    yield delta("one", 5)
    yield delta(" two", 6)
    yield late("timeout")


async def has_both_at_its_end() -> AsyncGenerator[RequestOutput, None]:
    yield late("timeout", "one two", 5, 6)


async def has_no_token() -> AsyncGenerator[RequestOutput, None]:
    yield late("ttft_timeout")


def test_a_stream_ends_with_a_last_chunk_and_done(scripted: Make) -> None:
    running = scripted(has_two_tokens)
    for response in (running.chat(stream=True), running.complete(stream=True)):
        events = events_of(response)
        assert text_of(events) == "one two"
        choice = events[-1]["choices"][0]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("abort", "timeout")


def test_a_stream_that_has_begun_with_a_comment_has_a_last_chunk(
    make_server: MakeServer, model_folder: Path
) -> None:
    """Its status was sent with the comment: a 504 comes too late."""
    engine = ScriptedEngine(model_folder, lambda: waits_for_a_comment(engine))
    running = make_server(ServerOptions(keep_alive_s=0.01), engine=engine)
    response = running.complete(stream=True)
    assert comments_of(response)
    choice = events_of(response)[-1]["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("abort", "queue_timeout")


async def waits_for_a_comment(engine: ScriptedEngine) -> AsyncGenerator[RequestOutput, None]:
    engine.progress_to_tell = RequestProgress(state="queued", position=1)
    for _ in range(2):  # the first comment is out when the second is to be written
        await engine.questions.get()
    yield late("queue_timeout")


@pytest.mark.parametrize("is_stream", [False, True])
def test_of_several_prompts_one_that_has_tokens_makes_an_answer(
    make_server: MakeServer, model_folder: Path, is_stream: bool
) -> None:
    """The first is late before the second has anything: that is not known to be a 504 then."""
    scripts = iter([has_no_token, has_both_at_its_end, has_no_token])
    engine = ScriptedEngine(model_folder, lambda: next(scripts)())
    running = make_server(engine=engine)
    response = running.complete(prompt=["a", "b", "c"], stream=is_stream)
    assert response.status_code == 200
    if is_stream:
        events = events_of(response)
        choices = [event["choices"][0] for event in events]
        ends = {c["index"]: c["stop_reason"] for c in choices if c["finish_reason"]}
    else:
        ends = {choice["index"]: choice["stop_reason"] for choice in response.json()["choices"]}
    assert ends == {0: "ttft_timeout", 1: "timeout", 2: "ttft_timeout"}


@pytest.mark.parametrize("is_stream", [False, True])
def test_if_all_prompts_are_late_it_is_a_504(scripted: Make, is_stream: bool) -> None:
    running = scripted(has_no_token)
    response = running.complete(prompt=["a", "b"], stream=is_stream)
    assert response.status_code == 504
    assert running.chat(stream=is_stream).status_code == 504
