"""`wheelpit bench` as a command: its options, its output, its exit status."""

import asyncio
import json

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.bench.fake_openai import Answer, FakeOpenAI
from wheelpit.cli.bench import bench

app = typer.Typer()
app.command()(bench)


async def invoke(*options: str) -> Result:
    """Run the command on a thread of its own: it brings its own event loop."""
    return await asyncio.to_thread(CliRunner().invoke, app, list(options))


async def test_the_last_line_is_json_with_the_settings() -> None:
    async with FakeOpenAI() as server:
        result = await invoke("--url", server.url, "--num-prompts", "4", "--input-range", "8:16")
    assert result.exit_code == 0, result.output
    assert "TTFT" in result.stdout
    line = json.loads(result.stdout.splitlines()[-1])
    assert line["num_succeeded"] == 4
    assert line["settings"]["concurrency"] == 16
    assert line["settings"]["input_tokens"] == {"low": 8, "high": 16}


async def test_json_only_prints_one_line_and_an_open_loop_has_no_concurrency() -> None:
    async with FakeOpenAI() as server:
        result = await invoke(
            *("--url", server.url, "--num-prompts", "4", "--request-rate", "500"),
            *("--endpoint", "chat", "--no-ignore-eos", "--extra-body", '{"top_k": 1}'),
            "--json-only",
        )
        body = server.generations[-1]
    assert result.exit_code == 0, result.output
    settings = json.loads(result.stdout)["settings"]
    assert (settings["concurrency"], settings["request_rate"]) == (None, 500.0)
    assert body["top_k"] == 1
    assert "ignore_eos" not in body


async def test_a_run_without_a_success_exits_with_1() -> None:
    async with FakeOpenAI([Answer(status=500)]) as server:
        result = await invoke("--url", server.url, "--num-prompts", "2", "--json-only")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["errors"] == {"500": 2}


async def test_an_unreachable_server_is_told_without_a_traceback() -> None:
    result = await invoke("--url", "http://127.0.0.1:1", "--num-prompts", "2")
    assert result.exit_code == 1
    assert "does not answer" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "options",
    [
        ("--concurrency", "2", "--request-rate", "3"),
        ("--input-range", "9"),
        ("--extra-body", "[]"),
        ("--extra-body", "{"),
        ("--request-rate", "0"),
        ("--url", "localhost:8000"),
    ],
)
async def test_wrong_options_are_refused(options: tuple[str, ...]) -> None:
    result = await invoke(*options)
    assert result.exit_code == 2, result.output
