"""The `wheelpit` command: finds the subcommand, imports only that one, and words its errors.

An error that somebody can act on is one line on standard error and an exit status: 2 for what was
typed, 1 for everything else. `wheelpit --debug COMMAND` shows the traceback instead.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from wheelpit.errors import ClientError, ConfigError, WheelpitError

COMMANDS = {
    "serve": "wheelpit.cli.serve",
    "chat": "wheelpit.cli.chat",
    "generate": "wheelpit.cli.generate",
    "bench": "wheelpit.cli.bench",
    "chaos": "wheelpit.cli.chaos",
    "lab": "wheelpit.cli.lab",
    "version": "wheelpit.cli.version",
}
"""Name -> the module with a function of that name."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    arguments = _dashed(sys.argv[1:] if argv is None else argv)
    try:
        build_app(arguments)(arguments, prog_name="wheelpit")
    except WheelpitError as error:
        if "--debug" in arguments[:1]:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"wheelpit: error: {message}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError | ClientError) else 1)
    except BrokenPipeError:
        # Whoever read our output has enough; keep the interpreter from flushing into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def build_app(arguments: Sequence[str] = ()) -> typer.Typer:
    """Return the app with the command that `arguments` name, with all of them for the help."""
    app = typer.Typer(
        name="wheelpit",
        help="Async online LLM serving: vLLM's Python API, OpenAI's HTTP API.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    named = next((word for word in arguments if not word.startswith("-")), None)
    for name in [named] if named in COMMANDS else COMMANDS:
        app.command(name)(getattr(importlib.import_module(COMMANDS[name]), name))
    return app


def _dashed(words: Sequence[str]) -> list[str]:
    """Spell --max_model_len=4 as --max-model-len=4: vLLM takes both. What follows "--" is text."""
    dashed: list[str] = []
    for place, word in enumerate(words):
        if word == "--":
            return [*dashed, *words[place:]]
        name, equals, value = word.partition("=")
        is_flag = word.startswith("--")
        dashed.append(name.replace("_", "-") + equals + value if is_flag else word)
    return dashed


def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks (before the command).")
    ] = False,
) -> None:
    """Async online LLM serving: vLLM's Python API, OpenAI's HTTP API."""
