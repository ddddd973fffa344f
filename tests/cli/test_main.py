"""The `wheelpit` command: help, versions, mistakes, and what it does not import."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tests.cli.command import run
from wheelpit.cli.main import COMMANDS, _dashed, build_app, main
from wheelpit.cli.startup import StartupClock, process_age_s
from wheelpit.errors import ConfigError, EngineStartError


def test_help_lists_all_commands():
    result = CliRunner().invoke(build_app(), ["--help"])
    assert result.exit_code == 0
    for name in COMMANDS:
        assert name in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name):
    result = CliRunner().invoke(build_app([name]), [name, "--help"])
    assert result.exit_code == 0, result.output


def test_without_arguments_the_help_is_shown():
    done = run()
    assert "serve" in done.stdout + done.stderr


def test_version_names_what_matters():
    done = run("version")
    assert done.returncode == 0
    assert done.stdout.startswith("wheelpit 0.")
    assert "\ntorch " in done.stdout


def test_an_unknown_command_is_a_usage_error():
    done = run("srve")
    assert done.returncode == 2
    assert "No such command 'srve'" in done.stderr


@pytest.mark.parametrize(
    ("error", "status"),
    [(ConfigError("block_size is 3,\nmust be 16"), 2), (EngineStartError("no memory"), 1)],
)
def test_our_errors_are_one_line_without_a_traceback(monkeypatch, capsys, error, status):
    def fail() -> None:
        raise error

    monkeypatch.setattr("wheelpit.cli.version.version", fail)
    with pytest.raises(SystemExit) as exit_:
        main(["version"])
    assert exit_.value.code == status
    assert capsys.readouterr().err == f"wheelpit: error: {' '.join(str(error).split())}\n"


def test_debug_shows_the_traceback(monkeypatch):
    def fail() -> None:
        raise ConfigError("no")

    monkeypatch.setattr("wheelpit.cli.version.version", fail)
    with pytest.raises(ConfigError):
        main(["--debug", "version"])


def test_a_reader_who_leaves_early_is_no_error():
    """`wheelpit version | head -1` must not end in a BrokenPipeError traceback."""
    code = (
        "import os, sys\n"
        "from wheelpit.cli.main import main\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        "main(['version'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-u", "-c", code], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("name", ["chat", "version", "serve", "generate"])
def test_a_command_imports_neither_torch_nor_the_server_before_it_runs(name):
    code = (
        f"import sys; from wheelpit.cli.main import build_app; build_app([{name!r}]);"
        "print([m for m in ('torch', 'numpy', 'fastapi', 'uvicorn', 'tokenizers', 'jinja2')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_startup_clock_counts_from_the_process():
    ages = iter([0.5, 2.0, 2.25])
    shown: list[str] = []
    clock = StartupClock(shown.append, lambda: next(ages))
    clock.phase("import")
    clock.line("weights", 1.0)
    clock.phase("load")
    assert shown == ["    0.50 s  import", "    1.00 s  weights", "    1.50 s  load"]
    assert clock.total_s() == 2.25


def test_the_age_of_a_process_includes_what_came_before_the_import():
    code = (
        "import time; time.sleep(0.3)\n"
        "from wheelpit.cli.startup import process_age_s; print(process_age_s())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.25 < float(done.stdout) < 30
    assert process_age_s() > 0


def test_flags_may_have_underscores_but_texts_stay_as_they_are():
    words = ["serve", "--max_model_len", "a_b", "--chat_template=c_d", "--", "--e_f"]
    assert _dashed(words) == [
        *("serve", "--max-model-len", "a_b", "--chat-template=c_d", "--", "--e_f")
    ]
