"""`wheelpit serve`: its flags, what it prints, and how it ends."""

import dataclasses
import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from tests.cli.command import run
from tests.cli.served import announcement
from wheelpit.cli.chat_client import ChatClient
from wheelpit.cli.serve import LISTEN_OPTIONS, SERVER_OPTIONS, serve, split_options
from wheelpit.cli.serve_start import announcement as ready_announcement
from wheelpit.engine.arg_utils import AsyncEngineArgs
from wheelpit.errors import ConfigError
from wheelpit.server.listen import Listen
from wheelpit.server.options import ServerOptions


def test_it_prints_its_phases_and_a_command_that_works(start, tmp_path):
    process = start("--port", "0", "--served-model-name", "tiny")
    *phases, ready, curl = announcement(process)
    assert len(phases) >= 4
    assert all(re.fullmatch(r" +\d+\.\d\d s +\S.*", phase) for phase in phases), phases
    match = re.fullmatch(r"Ready in \d+\.\d s: tiny at (http://127\.0\.0\.1:\d+)/v1.*Try:", ready)
    assert match, ready
    assert "open to the network without an API key" in ready
    assert list(ChatClient(match[1]).stream_chat({"model": "tiny", "messages": [HELLO]}))
    if shutil.which("curl"):
        done = subprocess.run(curl, shell=True, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["choices"][0]["message"]["role"] == "assistant"
    process.send_signal(signal.SIGINT)
    _, errors = process.end(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors


HELLO = {"role": "user", "content": "hi"}


def test_a_unix_socket_is_announced_with_a_command_that_works(start, tmp_path):
    process = start("--uds", str(tmp_path / "s"), "--api-key", "secret")
    *_, curl = announcement(process)
    assert f"--unix-socket {tmp_path / 's'} http://localhost/v1" in curl
    if shutil.which("curl"):
        done = subprocess.run(
            curl,
            shell=True,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "WHEELPIT_API_KEY": "secret"},
        )
        assert "choices" in json.loads(done.stdout)


def test_a_port_in_use_is_told_at_once(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("--host", "127.0.0.1", "--port", str(port))
        _, errors = process.end(timeout=30)
    assert process.returncode == 1
    assert f"wheelpit: error: port {port} is in use" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("fails", ["clearly", "silently"])
def test_an_engine_that_does_not_start_is_one_line(start, fails):
    process = start("--port", "0", fails=fails)
    _, errors = process.end(timeout=30)
    assert process.returncode == 1
    assert [line for line in errors.splitlines() if line.startswith("wheelpit: error: ")]


def test_a_model_that_is_not_there_is_one_line():
    done = run("serve", "/no/such/folder", "--port", "0", "--host", "127.0.0.1")
    assert done.returncode == 1
    assert done.stderr.startswith("wheelpit: error: '/no/such/folder' does not exist: give")


def test_a_certificate_that_cannot_be_used_is_one_line(tmp_path):
    done = run("serve", "--ssl-certfile", str(tmp_path / "no.pem"), "--port", "0")
    assert done.returncode == 2
    assert "no.pem cannot be used: No such file or directory" in done.stderr
    (tmp_path / "bad.pem").write_text("not a certificate")
    done = run("serve", "--ssl-certfile", str(tmp_path / "bad.pem"), "--port", "0")
    assert done.returncode == 2
    assert "bad.pem cannot be used: " in done.stderr


def test_a_broken_chat_template_is_told_before_the_first_request(start, tmp_path):
    (tmp_path / "mine.jinja").write_text("{% for %}")
    process = start("--port", "0", "--chat-template", str(tmp_path / "mine.jinja"))
    _, errors = process.end(timeout=30)
    assert process.returncode == 2
    assert "wheelpit: error: chat template does not compile: line 1" in errors


def test_a_model_with_a_broken_template_still_serves_completions(start, tmp_path):
    (tmp_path / "tiny" / "chat_template.jinja").write_text("{% for %}")
    process = start("--port", "0")
    assert announcement(process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.end(timeout=30)
    assert "chat will not work, completions will: chat template does not compile" in errors


# --- flags


def given(*arguments: str) -> tuple[Listen, ServerOptions, AsyncEngineArgs]:
    """Return the options that a command line leads to."""
    found = []

    def keep(options):
        found.append(split_options(options))
        raise ConfigError("enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wheelpit.cli.serve.split_options", keep)
        done = run("serve", *arguments)
    assert found, done.stderr
    return found[0]


def test_without_flags_all_defaults_are_those_of_the_options():
    assert given() == (Listen(), ServerOptions(), AsyncEngineArgs.for_server({}))
    assert AsyncEngineArgs.for_server({}).max_num_queued_reqs == 512


def test_each_flag_reaches_the_option_of_its_name():
    listen, options, args = given(
        *(
            "some/model",
            "--host",
            "::1",
            "--port",
            "9",
            "--ssl-certfile",
            "c",
            "--ssl-keyfile",
            "k",
        ),
        *("--ssl-keyfile", "k"),
        *("--api-key", "a", "--api-key", "b", "--root-path", "/x", "--metrics-prefix", "vllm"),
        *("--allowed-origins", '["https://a"]', "--max-body-bytes", "1M"),
        *("--served-model-name", "m", "--served-model-name", "n", "--max-model-len", "16k"),
        *("--kv-cache-memory-bytes", "1.5G", "--max-num-batched-tokens", "8k"),
        *("--no-enable-prefix-caching", "--enable-chunked-prefill", "--scheduling-policy"),
        *("priority", "--override-generation-config", '{"top_k": 5}', "--enable-log-requests"),
        *("--seed", "3", "--shutdown-timeout", "2.5", "--disable-fastapi-docs"),
    )
    assert listen == Listen(
        host="::1", port=9, ssl_certfile="c", ssl_keyfile="k", shutdown_timeout_s=2.5
    )
    assert options == ServerOptions(
        api_keys=("a", "b"),
        root_path="/x",
        metrics_prefix="vllm",
        allowed_origins=("https://a",),
        max_body_bytes=2**20,
        enable_openapi=False,
    )
    assert args == AsyncEngineArgs.for_server(
        {
            "model": "some/model",
            "served_model_name": ["m", "n"],
            "max_model_len": "16k",
            "kv_cache_memory_bytes": 1536 * 2**20,
            "max_num_batched_tokens": 8000,
            "enable_prefix_caching": False,
            "enable_chunked_prefill": True,
            "scheduling_policy": "priority",
            "override_generation_config": {"top_k": 5},
            "enable_log_requests": True,
            "seed": 3,
        }
    )


def test_flags_for_too_much_work_reach_the_options_of_their_names():
    _, options, args = given(
        *("--max-num-queued-reqs", "2k", "--max-num-queued-tokens", "none", "--refuse-late"),
        *("--default-timeout", "60", "--default-queue-timeout", "5.5"),
        *("--default-ttft-timeout", "10", "--tenant-config", "t.toml", "--priority-ageing-s", "0"),
        *("--overload-status", "503", "--admin-key", "a", "--sse-keep-alive-interval", "0"),
    )
    assert options == ServerOptions(admin_key="a", overload_status=503, keep_alive_s=0.0)
    assert args == AsyncEngineArgs(
        max_num_queued_reqs=2000,
        max_num_queued_tokens=None,
        refuse_late=True,
        default_timeout=60.0,
        default_queue_timeout=5.5,
        default_ttft_timeout=10.0,
        tenant_config="t.toml",
        priority_ageing_s=0.0,
    )


def test_flags_may_be_spelt_as_vllm_also_allows():
    expected = AsyncEngineArgs.for_server({"model": "m", "max_model_len": "4096"})
    assert given("--model", "m", "--max_model_len=4096")[2] == expected


def test_keys_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("WHEELPIT_API_KEY", "secret")
    assert given()[1].api_keys == ("secret",)


def test_every_flag_has_an_option_behind_it():
    own = {"context", "log_level", "uvicorn_log_level", "model_option", "api_key"} | {
        "enable_docs",
        "chaos",
    }
    fields = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    for name in inspect.signature(serve).parameters:
        assert name in own | fields | set(LISTEN_OPTIONS) | set(SERVER_OPTIONS), name
    assert set(LISTEN_OPTIONS) <= {field.name for field in dataclasses.fields(Listen)}
    assert set(SERVER_OPTIONS) <= {field.name for field in dataclasses.fields(ServerOptions)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "99999"], "port is 99999, must be in [0, 65535]"),
        (["--max-body-bytes", "lots"], "'lots' is not a whole number such as 4096, 16k or 2G"),
        (["--allowed-origins", '{"a": 1}'], ""),
        (["--override-generation-config", "[1]"], "is not a JSON object"),
        (["--override-generation-config", "{"], "is not JSON"),
        (["--log-level", "loud"], "must be debug, info, warning, error or critical"),
        (["--metrics-prefix", "x"], "must be wheelpit or vllm"),
        (["--overload-status", "500"], "overload_status is 500, must be 429 or 503"),
        (["--max-num-queued-reqs", "few"], "'few' is not a whole number such as 4096"),
        (["--sse-keep-alive-interval", "-1"], "keep_alive_s is -1.0, must be at least 0"),
        (["--admin-key", ""], "admin_key"),
        (["--chaos", "kill"], "chaos is 'kill', must be probabilities of each step"),
        (["--chaos", "kill=2"], "chaos: kill is 2.0, must be in [0, 1]"),
        (["--chaos", "kill=0.1,kill=0.1"], "must be probabilities of each step"),
        (["--chaos", "kill=0.6,slow=0.6"], "must be at most 1 in all"),
        (["--tensor-parallel-size", "2"], "tensor_parallel_size"),
        (["--no-such-flag"], "No such option"),
    ],
)
def test_a_wrong_flag_ends_with_status_2_and_says_why(monkeypatch, arguments, message):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("wheelpit.cli.serve.start_and_run", lambda *options: 0)
    done = run("serve", *arguments)
    if message:
        assert done.returncode == 2
        assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_the_announcement_can_be_pasted_whatever_the_name():
    text = ready_announcement("http://[::]:80", "it's a model", False, 1.0)
    assert "at http://[::1]:80/v1; open to the network" in text
    assert """"it'"'"'s a model""" in text
    guarded = ready_announcement("https://10.0.0.1:8000", "m", True, 1.0)
    assert "open to the network" not in guarded
    assert '-H "Authorization: Bearer $WHEELPIT_API_KEY"' in guarded
