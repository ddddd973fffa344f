"""A run on the terminal: a table for people, then one line of JSON for programs."""

import json
from collections.abc import Mapping
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from wheelpit.bench.load import LoadResult
from wheelpit.bench.measure import Distribution, Summary


def print_report(result: LoadResult, settings: Mapping[str, object], *, is_json_only: bool) -> None:
    """Print the table, unless told otherwise, and the JSON line last."""
    if not is_json_only:
        console = Console()
        for table in (latency_table(result), throughput_table(result)):
            console.print(table)
    print(json_line(result, settings))


def json_line(result: LoadResult, settings: Mapping[str, object]) -> str:
    """Return everything measured as one line of JSON; milliseconds in `*_ms`."""
    line = {
        "model": result.model,
        "prompts": result.prompts,
        **asdict(result.summary),
        "settings": dict(settings),
    }
    return json.dumps(_rounded(line))


def latency_table(result: LoadResult) -> Table:
    """Return mean, median and 99th percentile of the four latencies."""
    summary = result.summary
    table = Table(title=f"{result.model}: latency (ms)")
    for column in ("", "mean", "p50", "p99"):
        table.add_column(column, justify="right" if column else "left")
    rows: tuple[tuple[str, Distribution | None], ...] = (
        ("TTFT (to the first token)", summary.ttft_ms),
        ("ITL (between tokens)", summary.itl_ms),
        ("TPOT (per token of a request)", summary.tpot_ms),
        ("E2E (to the end)", summary.e2e_ms),
    )
    for name, values in rows:
        if values is None:
            table.add_row(name, "-", "-", "-")
        else:
            table.add_row(name, *(f"{v:,.2f}" for v in (values.mean, values.p50, values.p99)))
    return table


def throughput_table(result: LoadResult) -> Table:
    """Return counts and rates."""
    summary = result.summary
    num_done = max(1, summary.num_succeeded)
    counted_by = "server's usage" if summary.is_counted_by_usage else "chunks"
    rows = [
        ("requests succeeded", f"{summary.num_succeeded} of {summary.num_requests}"),
        ("refused", _refused(summary)),
        ("timed out", _counts(summary.timed_out)),
        ("errors", _counts(summary.errors)),
        ("finish reasons", _counts(summary.finish_reasons)),
        ("duration", f"{summary.duration_s:.2f} s"),
        ("input tokens a request", f"{summary.num_input_tokens / num_done:.1f} ({result.prompts})"),
        (
            "output tokens a request",
            f"{summary.num_output_tokens / num_done:.1f} (by {counted_by})",
        ),
        ("requests/s", f"{summary.requests_per_s:,.2f}"),
        ("output tokens/s", f"{summary.output_tokens_per_s:,.1f}"),
        ("total tokens/s", f"{summary.total_tokens_per_s:,.1f}"),
    ]
    if summary.client_cpu_us_per_token is not None:
        rows.append(("client's CPU a token", f"{summary.client_cpu_us_per_token:.1f} us"))
    table = Table(title="throughput", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _refused(summary: Summary) -> str:
    counts = _counts(summary.refused)
    if summary.retry_after_s is None:
        return counts
    return f"{counts}, to retry after {summary.retry_after_s:g} s"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} x {name}" for name, number in counts.items()) or "none"


def _rounded(value: object) -> object:
    """Round every float to six decimals: below a microsecond is noise."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return value
