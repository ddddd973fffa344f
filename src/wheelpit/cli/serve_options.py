"""The kinds of options that `wheelpit serve` has: panels of its help, and how values are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

MODEL = "Model"
CACHE = "KV cache"
SCHEDULER = "Scheduling"
TRAFFIC = "When there is too much work"
FAULTS = "When the engine fails"
LISTEN = "Listening"
SECURITY = "Security"
ANSWERS = "Answers"
LOGS = "Logs and metrics"
COMPATIBLE = "For vLLM's sake"

Text = str | None
Number = int | None
Fraction = float | None
Flag = bool | None

FACTORS = {
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "K": 2**10,
    "M": 2**20,
    "G": 2**30,
}
"""vLLM's rule: small letters are decimal, capitals binary."""


def option(panel: str, help_text: str, *names: str) -> Any:
    """Describe an option; without names it is called like its parameter."""
    return typer.Option(*names, rich_help_panel=panel, help=help_text, show_default=False)


def switch(panel: str, subject: str, help_text: str) -> Any:
    """Describe --enable-SUBJECT and --no-enable-SUBJECT."""
    return option(panel, help_text, f"--enable-{subject}/--no-enable-{subject}")


def count(panel: str, help_text: str) -> Any:
    """Describe an option for a whole number such as 16k or 2G."""
    return typer.Option(
        rich_help_panel=panel, help=help_text, parser=parse_count, metavar="<count>"
    )


def json_option(panel: str, parser: Callable[[str], Any], help_text: str) -> Any:
    """Describe an option whose value is JSON."""
    return typer.Option(rich_help_panel=panel, help=help_text, parser=parser, metavar="<json>")


def parse_count(text: str) -> int:
    """4096, 16k (16,000), 16K (16,384), 1.5G: a whole number."""
    factor = FACTORS.get(text[-1:], 1)
    try:
        count = float(text[:-1] if factor != 1 else text) * factor
        if count == int(count):
            return int(count)
    except (ValueError, OverflowError):
        pass
    raise typer.BadParameter(f"{text!r} is not a whole number such as 4096, 16k or 2G")


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound as it was typed; None is no bound, which is not the same as none given."""

    limit: int | None


def parse_bound(text: str) -> Bound:
    """A whole number such as 512 or 16k, or "none"."""
    return Bound(None if text.lower() == "none" else parse_count(text))


def _bound(help_text: str) -> Any:
    return typer.Option(
        rich_help_panel=TRAFFIC, help=help_text, parser=parse_bound, metavar="<count>"
    )


def _seconds(flag: str, help_text: str, panel: str = TRAFFIC) -> Any:
    return typer.Option(
        flag, rich_help_panel=panel, help=help_text, metavar="<seconds>", show_default=False
    )


MaxQueuedReqs = Annotated[
    Any,
    _bound("Most that wait beyond the free seats; others are refused. none: all. Default: 512."),
]
MaxQueuedTokens = Annotated[
    Any, _bound("Most prompt tokens that wait. none: no bound. Default: 262144.")
]
OverloadStatus = Annotated[
    Number, option(TRAFFIC, "Status of a refusal: 429 or 503. Default: 429.")
]
RefuseLate = Annotated[
    Flag,
    option(
        TRAFFIC,
        "Refuse at once what would start after its own deadline. Default: no.",
        "--refuse-late/--no-refuse-late",
    ),
]
DefaultTimeout = Annotated[
    Fraction,
    _seconds("--default-timeout", "Ends a request, with what there is of it. Default: none."),
]
DefaultQueueTimeout = Annotated[
    Fraction, _seconds("--default-queue-timeout", "Ends one that has not started. Default: none.")
]
DefaultTtftTimeout = Annotated[
    Fraction, _seconds("--default-ttft-timeout", "Ends one without a token. Default: none.")
]
TenantConfig = Annotated[
    Text, option(TRAFFIC, "TOML file: who the tenants are, their API keys and limits.")
]
PriorityAgeing = Annotated[
    Fraction,
    _seconds("--priority-ageing-s", "Waiting that makes up for a level of priority. Default: 30."),
]
StallTimeout = Annotated[
    Fraction,
    _seconds(
        "--engine-stall-timeout",
        "With work to do and no step finished for so long, the engine is replaced. Default: 20.",
        FAULTS,
    ),
]
MaxRestarts = Annotated[
    Number,
    option(FAULTS, "Engines that may die within the restart window. Default: 5."),
]
RestartWindow = Annotated[
    Fraction, _seconds("--restart-window", "See --max-restarts. Default: 300.", FAULTS)
]
ChaosOption = Annotated[
    Text,
    typer.Option(
        "--chaos",
        rich_help_panel=FAULTS,
        metavar="<kill=P,hang=P,slow=P>",
        help="For tests: probabilities of each step that the engine fails on purpose.",
        show_default=False,
    ),
]
ResumeWindow = Annotated[
    Fraction,
    _seconds(
        "--resume-window",
        "A stream asked for with X-Resumable: 1 outlives its connection. 0: none. Default: 30.",
        FAULTS,
    ),
]
KeepAlive = Annotated[
    Fraction,
    _seconds(
        "--sse-keep-alive-interval",
        "A silent stream gets a comment with its place in the queue. 0: never. Default: 1.",
    ),
]
AdminKey = Annotated[Text, option(SECURITY, "Opens /admin/*, which is not there without it.")]


def parse_json_object(text: str) -> dict[str, Any]:
    """A JSON object, such as {"temperature": 0.5}."""
    value = _parse_json(text)
    if not isinstance(value, dict):
        raise typer.BadParameter(f'{text!r} is not a JSON object such as {{"temperature": 0.5}}')
    return value


def parse_json_strings(text: str) -> tuple[str, ...]:
    """A JSON list of strings, such as ["*"]; a bare word is a list of one."""
    value = _parse_json(text) if text.lstrip().startswith("[") else [text]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise typer.BadParameter(f'{text!r} is not a JSON list of strings such as ["*"]')
    return tuple(value)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON: {error}") from error
