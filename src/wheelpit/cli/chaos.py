"""`wheelpit chaos`: kill a running server's engine at random, and compare every answer."""

import asyncio
import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from wheelpit.bench.chaos import ChaosPlan, ChaosReport, run_chaos
from wheelpit.errors import ConfigError


def chaos(
    admin_key: Annotated[str, typer.Option(help="The server's --admin-key.")],
    url: Annotated[str, typer.Option(help="The server, on this machine.")] = (
        "http://127.0.0.1:8000"
    ),
    streams: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 16,
    tokens: Annotated[int, typer.Option(min=1, help="Of each answer.")] = 128,
    seconds: Annotated[float, typer.Option(help="How long to disturb.")] = 60.0,
    kill_every: Annotated[float, typer.Option(help="Seconds, on average.")] = 5.0,
    ways: Annotated[
        str, typer.Option(help="kill (SIGKILL), stop (SIGSTOP: it hangs), or both.")
    ] = "kill,stop",
    seed: Annotated[int, typer.Option()] = 0,
    json_only: Annotated[bool, typer.Option("--json-only", help="Print no table.")] = False,
) -> None:
    """Kill and stop a server's engine at random and compare every answer with an undisturbed one.

    Lost, duplicated and altered tokens must be 0, 0, 0: exits with 1 if not. Start the server with
    `--dtype float32 --device cpu --admin-key KEY --max-restarts 10000 --engine-stall-timeout 2`:
    in other types, or on a GPU, an answer may depend on what else was in its batch.
    """
    try:
        plan = ChaosPlan(
            url=url,
            admin_key=admin_key,
            num_streams=streams,
            num_tokens=tokens,
            seconds=seconds,
            kill_every_s=kill_every,
            ways=tuple(ways.split(",")),
            seed=seed,
        )
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    report = asyncio.run(run_chaos(plan, lambda line: print(line, file=sys.stderr)))
    if not json_only:
        _print_table(report)
    print(json.dumps(asdict(report)))
    if not report.is_clean:
        raise typer.Exit(1)


def _print_table(report: ChaosReport) -> None:
    if not report.is_comparable:
        print(
            "The server does not compute in float32 on a CPU: its answers may differ without a "
            "fault. Start it with --dtype float32 --device cpu."
        )
    rows = [
        ("answers compared", report.num_answers),
        ("  that did not come to their end", report.num_incomplete),
        ("engines killed", report.num_kills),
        ("engines stopped", report.num_stops),
        ("engines replaced", report.num_restarts),
        ("tokens lost", report.lost_tokens),
        ("tokens duplicated", report.duplicated_tokens),
        ("tokens altered", report.altered_tokens),
        ("longest pause", f"{report.longest_pause_s:.2f} s"),
        ("longest pause, undisturbed", f"{report.longest_pause_undisturbed_s:.2f} s"),
    ]
    for name, value in rows:
        print(f"{name:36}{value}")
    if report.first_error is not None:
        print(f"first error: {report.first_error}")
