"""Wheelpit and its peers on this machine's CPU: same model, threads and HTTP load, interleaved.

Each round takes each engine in turn: start, wait until ready, warm up, one run for each number of
streams, stop. What is reported are medians over the rounds, so that a slow minute of the machine
does not fall on one engine alone. Prints a Markdown table, then one line of JSON. README.md says
how to install the peers; an engine whose executable is not given is left out.
"""

import argparse
import json
import os
import shlex
import signal
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from machine import CpuTimes, Memory, describe_machine, set_niceness
from peers import (
    Engine,
    Limits,
    RunningServer,
    llama_server,
    transformers_serve,
    vllm_cpu,
    wheelpit,
)

from wheelpit.bench.load import LoadPlan, run_load_blocking
from wheelpit.bench.measure import Summary
from wheelpit.bench.workload import LengthRange, Workload


@dataclass(frozen=True, slots=True)
class Run:
    """One load on one engine in one round. `others_cores`: what neighbours took of the machine."""

    engine: str
    round: int
    streams: int
    ready_s: float
    memory: Memory
    others_cores: float
    summary: Summary


def main() -> None:
    """Run the comparison named on the command line."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that servers are stopped
    engines = list_engines(arguments)
    if not engines:
        raise SystemExit("no engine given: see --help")
    logs = Path(arguments.logs or tempfile.mkdtemp(prefix="cpu_serving_"))
    logs.mkdir(parents=True, exist_ok=True)
    print(f"servers log to {logs}", file=sys.stderr)
    runs: list[Run] = []
    for round_index in range(arguments.rounds):
        for engine in engines:
            try:
                runs += measure_engine(engine, round_index, arguments, logs)
            except RuntimeError as error:
                print(f"left out: {error}", file=sys.stderr)
    print(markdown_table(runs, [engine.name for engine in engines], arguments.streams))
    print(json.dumps(as_json(runs, engines)))


def parse_arguments() -> argparse.Namespace:
    """Define the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face Llama folder")
    parser.add_argument("--wheelpit-python", default=sys.executable)
    parser.add_argument("--wheelpit-args", default="", help="more flags for `wheelpit serve`")
    parser.add_argument("--no-wheelpit", action="store_true")
    parser.add_argument("--transformers-python", help="interpreter that has transformers[serving]")
    parser.add_argument("--vllm-python", help="interpreter that has vllm-cpu")
    parser.add_argument("--vllm-zen-python", help="interpreter that has vllm-cpu and zentorch")
    parser.add_argument("--vllm-preload", default="", help="LD_PRELOAD for vLLM: PATH:PATH")
    parser.add_argument("--llama-server", help="llama.cpp's llama-server")
    parser.add_argument("--gguf", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--only", nargs="+", help="names of the engines to run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--requests-per-stream", type=int, default=4)
    parser.add_argument("--input-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--max-model-len", type=int, default=512)
    parser.add_argument("--ready-timeout-s", type=float, default=400.0)
    parser.add_argument(
        "--nice",
        type=int,
        default=0,
        help="niceness while measuring; below 0, as root, where neighbours share the machine",
    )
    parser.add_argument("--logs", help="folder for the servers' output")
    return parser.parse_args()


def list_engines(arguments: argparse.Namespace) -> list[Engine]:
    """Return the engines whose executables were given, Wheelpit first."""
    model: Path = arguments.model.resolve()
    limits = Limits(arguments.threads, max(arguments.streams), arguments.max_model_len)
    engines: list[Engine] = []
    if not arguments.no_wheelpit:
        engines.append(wheelpit(arguments.wheelpit_python, model, limits, arguments.wheelpit_args))
    for name, python in (
        ("vLLM CPU", arguments.vllm_python),
        ("vLLM CPU + zentorch", arguments.vllm_zen_python),
    ):
        if python:
            engines.append(vllm_cpu(name, python, model, limits, arguments.vllm_preload))
    if arguments.transformers_python:
        engines.append(transformers_serve(arguments.transformers_python, model, limits))
    for named in arguments.gguf:
        name, _, path = named.partition("=")
        engines.append(llama_server(name, arguments.llama_server, Path(path).resolve(), limits))
    return [e for e in engines if arguments.only is None or e.name in arguments.only]


def measure_engine(
    engine: Engine, round_index: int, arguments: argparse.Namespace, logs: Path
) -> list[Run]:
    """Start one engine, load it with each number of streams and stop it."""
    server = RunningServer(engine, logs / f"{engine.name.replace(' ', '_')}_{round_index}.log")
    runs = []
    try:
        ready_s = server.wait_until_ready(arguments.ready_timeout_s)
        if arguments.nice:
            # The client, too: a server that spins would starve it, and its clock with it.
            set_niceness(server.session_id, arguments.nice)
            set_niceness(os.getpid(), arguments.nice)
        for streams in arguments.streams:
            workload = Workload(
                num_prompts=streams * arguments.requests_per_stream,
                input_tokens=LengthRange(arguments.input_tokens, arguments.input_tokens),
                output_tokens=LengthRange(arguments.output_tokens, arguments.output_tokens),
                seed=1000 * round_index + streams,
                ignore_eos=engine.ignore_eos,
                extra_body=engine.extra_body,
            )
            plan = LoadPlan(
                server.url,
                model=engine.model,
                concurrency=streams,
                num_warmup=streams,
                prompt_format=engine.prompt_format,
                tokenizer_path=arguments.model / "tokenizer.json",
            )
            before = CpuTimes.now(server.session_id)
            summary = run_load_blocking(plan, workload).summary
            others_cores = CpuTimes.now(server.session_id).others_since(before)
            memory = Memory.of_session(server.session_id)
            run = Run(engine.name, round_index, streams, ready_s, memory, others_cores, summary)
            print(progress_line(run), file=sys.stderr)
            runs.append(run)
    finally:
        server.stop()
        if arguments.nice:
            set_niceness(os.getpid(), 0)
    return runs


def progress_line(run: Run) -> str:
    """Say on one line what a run gave."""
    itl = f"{run.summary.itl_ms.p50:.2f}" if run.summary.itl_ms else "-"
    return (
        f"round {run.round} {run.engine}, {run.streams} streams: "
        f"{run.summary.output_tokens_per_s:.1f} tok/s, ITL p50 {itl} ms, "
        f"errors {run.summary.errors or 'none'}, others took {run.others_cores:.2f} cores"
    )


def markdown_table(runs: list[Run], names: list[str], streams: list[int]) -> str:
    """Return medians over the rounds; the ratio is the first engine's tok/s over the row's."""
    header = ["engine"]
    for n in streams:
        header += [
            f"tok/s, {n} str.",
            "min-max",
            "first / it",
            "TTFT p50 ms",
            "ITL p50 ms",
            "ITL p99 ms",
        ]
    header += ["ready s", "peak RSS MiB"]
    rows = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for name in names:
        mine = [run for run in runs if run.engine == name]
        if not mine:
            rows.append([name, *["-"] * (len(header) - 1)])
            continue
        row = [name]
        for n in streams:
            row += stream_cells(
                [run for run in mine if run.streams == n],
                [run for run in runs if run.engine == names[0] and run.streams == n],
            )
        row.append(f"{statistics.median(run.ready_s for run in mine):.1f}")
        row.append(f"{max(run.memory.peak_rss_mib for run in mine):,.0f}")
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def stream_cells(mine: list[Run], first: list[Run]) -> list[str]:
    """Return the cells of one engine at one number of streams."""
    rates = [run.summary.output_tokens_per_s for run in mine]
    rate = statistics.median(rates)
    first_rates = [run.summary.output_tokens_per_s for run in first]
    ratio = f"{statistics.median(first_rates) / rate:.2f}" if first_rates and rate else "-"
    cells = [f"{rate:,.0f}", f"{min(rates):,.0f}-{max(rates):,.0f}", ratio]
    for values in (
        [run.summary.ttft_ms.p50 for run in mine if run.summary.ttft_ms],
        [run.summary.itl_ms.p50 for run in mine if run.summary.itl_ms],
        [run.summary.itl_ms.p99 for run in mine if run.summary.itl_ms],
    ):
        cells.append(f"{statistics.median(values):.1f}" if values else "-")
    return cells


def as_json(runs: list[Run], engines: list[Engine]) -> dict[str, object]:
    """Return everything that was measured, and on what."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "machine": describe_machine(),
        "versions": {engine.name: engine.version() for engine in engines},
        "servers": {engine.name: shlex.join(engine.command) for engine in engines},
        "runs": [asdict(replace(run, others_cores=round(run.others_cores, 3))) for run in runs],
    }


if __name__ == "__main__":
    main()
