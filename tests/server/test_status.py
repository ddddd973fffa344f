"""Probes, models, load, tokenizing and the description of the API."""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.server.conftest import MakeServer, RunningServer
from wheelpit import __version__
from wheelpit.server.options import ServerOptions


def test_probes_are_empty_and_ok(server: RunningServer) -> None:
    for method, path in (
        ("GET", "/health"),
        ("HEAD", "/health"),
        ("GET", "/ping"),
        ("POST", "/ping"),
    ):
        response = server.client.request(method, path)
        assert response.status_code == 200
        assert response.content == b""


def test_version(server: RunningServer) -> None:
    assert server.client.get("/version").json() == {"version": __version__}


def test_models_have_cards(make_server: MakeServer) -> None:
    running = make_server(ServerOptions(served_model_names=("first", "org/second")))
    cards = running.client.get("/v1/models").json()
    assert cards["object"] == "list"
    assert [card["id"] for card in cards["data"]] == ["first", "org/second"]
    assert {card["root"] for card in cards["data"]} == {"first"}
    assert cards["data"][0]["max_model_len"] == 256
    assert cards["data"][0]["permission"][0]["object"] == "model_permission"
    assert running.client.get("/v1/models/org/second").json()["id"] == "org/second"
    assert running.client.get("/v1/models/third").status_code == 404
    assert running.complete(model="org/second").json()["model"] == "first"
    assert running.complete(model="tiny").status_code == 404


def test_load_counts_what_is_being_generated(slow_server: RunningServer) -> None:
    assert slow_server.client.get("/load").json() == {"server_load": 0}
    body = {"prompt": ["a", "b"], "stream": True, "max_tokens": 100, "return_token_ids": True}
    with slow_server.client.stream("POST", "/v1/completions", json=body) as response:
        parts = response.iter_raw()
        next(parts)
        assert slow_server.client.get("/load").json() == {"server_load": 2}


def test_health_tells_of_a_dead_engine_and_the_server_ends(make_server: MakeServer) -> None:
    running = make_server(max_restarts=0)
    assert running.is_serving()
    os.kill(running.engine.engine_pid, signal.SIGKILL)
    failed = running.complete()
    assert failed.status_code == 500
    assert failed.json()["error"]["type"] == "InternalServerError"
    assert running.client.get("/health").status_code == 503
    running.join()
    assert running.exit_code == 1


def test_tokenize_and_detokenize_are_inverse(server: RunningServer) -> None:
    text = "Grüße, <|im_start|>世界!"
    answer = server.post("/tokenize", {"prompt": text}).json()
    assert answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == 256
    assert answer["token_strs"] is None
    assert server.post("/detokenize", {"tokens": answer["tokens"]}).json() == {"prompt": text}


def test_tokenize_takes_messages(server: RunningServer) -> None:
    messages = [{"role": "user", "content": "hi"}]
    body = {"messages": messages, "return_token_strs": True}
    answer = server.post("/tokenize", body).json()
    assert len(answer["token_strs"]) == answer["count"]
    assert answer["token_strs"][0] == "<|im_start|>"
    prompt = server.post("/detokenize", {"tokens": answer["tokens"]}).json()["prompt"]
    assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_tokenize_refuses_what_is_neither_or_both(server: RunningServer) -> None:
    messages = [{"role": "user", "content": "hi"}]
    bodies: list[dict[str, Any]] = [{}, {"prompt": "x", "messages": messages}, {"messages": []}]
    for body in [*bodies, {"prompt": 5}]:
        assert server.post("/tokenize", body).status_code == 400


def test_detokenize_refuses_ids_that_do_not_exist(server: RunningServer) -> None:
    for tokens in ([10**6], [-1], ["a"], [10**30], None, [2**32]):
        response = server.post("/detokenize", {"tokens": tokens})
        assert response.status_code == 400
        assert response.json()["error"]["type"]
    assert server.post("/detokenize", {"tokens": []}).json() == {"prompt": ""}


def test_a_long_detokenize_is_right_too(server: RunningServer) -> None:
    tokens = server.post("/tokenize", {"prompt": "ab"}).json()["tokens"] * 10_000
    assert server.post("/detokenize", {"tokens": tokens}).json() == {"prompt": "ab" * 10_000}


def test_openapi_describes_the_bodies(server: RunningServer) -> None:
    described = server.client.get("/openapi.json").json()
    operation = described["paths"]["/v1/chat/completions"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    name = schema["$ref"].rsplit("/", 1)[1]
    fields = described["components"]["schemas"][name]["properties"]
    assert {"messages", "temperature", "stream", "top_k"} <= fields.keys()
    assert server.client.get("/docs").status_code == 404


def test_docs_can_be_switched_on_and_openapi_off(make_server: MakeServer) -> None:
    with_docs = make_server(ServerOptions(enable_docs=True, root_path="/api"))
    assert "/api/openapi.json" in with_docs.client.get("/docs").text
    assert with_docs.client.get("/openapi.json").json()["servers"] == [{"url": "/api"}]
    without = make_server(ServerOptions(enable_openapi=False))
    assert without.client.get("/openapi.json").status_code == 404
