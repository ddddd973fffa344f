"""`wheelpit generate`, with a fake runner behind LLM."""

import json
import sys
from types import ModuleType

import pytest

from tests.cli.command import run
from tests.fakes import FakeRunner
from tests.tiny_model import make_model_folder


@pytest.fixture
def model(tmp_path, monkeypatch) -> str:
    """A tiny model's folder; LLM gets a fake runner for it."""
    module = ModuleType("wheelpit.runner.model_runner")
    module.ModelRunner = lambda config: FakeRunner(vocab_size=259)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return str(make_model_folder(tmp_path / "tiny"))


def answers(*arguments: str, typed: str = "") -> list[dict]:
    done = run("generate", "--json", *arguments, typed=typed)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_one_prompt_gives_its_answer_alone(model):
    done = run("generate", "hi", "--model", model, "--max-tokens", "5")
    assert done.returncode == 0, done.stderr
    [answer] = answers("hi", "--model", model, "--max-tokens", "5")
    assert done.stdout == answer["text"] + "\n"
    assert answer["prompt"] == "hi"
    assert answer["completion_tokens"] == 5
    assert answer["finish_reason"] == "length"


def test_several_prompts_have_titles(model):
    done = run("generate", "one", "two\nlines", "--model", model, "--max-tokens", "2")
    titles = [line for line in done.stdout.splitlines() if line.startswith("# ")]
    assert titles == ["# one", "# two lines"]


def test_the_chat_template_is_used_if_there_is_one(model):
    [chat] = answers("hi", "--model", model)
    [raw] = answers("hi", "--model", model, "--raw")
    [asked] = answers("hi", "--model", model, "--chat", "--system", "Be kind.")
    assert raw["prompt_tokens"] == 2
    assert asked["prompt_tokens"] > chat["prompt_tokens"] > 2


def test_a_dash_reads_standard_input(model):
    [answer] = answers("-", "--raw", "--model", model, "--max-tokens", "1", typed="from a pipe")
    assert answer["prompt"] == "from a pipe"


def test_a_system_message_needs_the_template(model):
    done = run("generate", "hi", "--model", model, "--raw", "--system", "Be kind.")
    assert done.returncode == 2
    assert "leave out --raw" in done.stderr


def test_a_prompt_that_is_too_long_is_one_line(model):
    done = run("generate", "x" * 1000, "--model", model)
    assert done.returncode == 2
    assert done.stderr.startswith("wheelpit: error: ")
    assert done.stderr.count("\n") == 1


def test_a_model_without_a_template_continues_the_text(model, tmp_path):
    (tmp_path / "tiny" / "tokenizer_config.json").write_text("{}")
    [answer] = answers("hi", "--model", model, "--max-tokens", "1")
    assert answer["prompt_tokens"] == 2
    done = run("generate", "hi", "--model", model, "--chat")
    assert done.returncode == 2
    assert "no chat template" in done.stderr
