"""The ceiling of a front end: how many tokens a second it streams when the model costs nothing.

    python benchmarks/front_end.py --server-command "CMD --port {port}" [--streams 256]

CMD serves OpenAI's API with a model runner that only makes up tokens, so that what is left is HTTP,
messages, scheduling and detokenizing. The load generator runs on the same machine; its own
processor time is reported, and it must have cores to spare for the figure to be the server's.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from machine import CpuTimes, Memory, describe_machine, set_niceness
from peers import Engine, RunningServer

from wheelpit.bench.load import LoadPlan, run_load_blocking
from wheelpit.bench.workload import LengthRange, Workload


def main() -> None:
    """Start the server, load it once with each number of streams, print a table and JSON."""
    arguments = parse_arguments()
    engine = Engine(
        name="front end",
        command=tuple(shlex.split(arguments.server_command)),
        model=arguments.model,
        version_command=("true",),
    )
    log = Path(tempfile.mkdtemp(prefix="front_end_")) / "server.log"
    print(f"server logs to {log}", file=sys.stderr)
    server = RunningServer(engine, log)
    try:
        server.wait_until_ready(arguments.ready_timeout_s)
        if arguments.nice:
            set_niceness(server.session_id, arguments.nice)
            set_niceness(os.getpid(), arguments.nice)
        runs = [measure(server, streams, arguments) for streams in arguments.streams]
    finally:
        server.stop()
        if arguments.nice:
            set_niceness(os.getpid(), 0)
    print("| streams | tok/s | TTFT p50 ms | ITL p50 ms | server us/tok | client us/tok |")
    print("|---:|---:|---:|---:|---:|---:|")
    for run in runs:
        print("| " + " | ".join(str(run[name]) for name in COLUMNS) + " |")
    print(
        json.dumps(
            {
                "command": shlex.join(["python", *sys.argv]),
                "machine": describe_machine(),
                "runs": runs,
            }
        )
    )


COLUMNS = (
    "streams",
    "tokens_per_s",
    "ttft_p50_ms",
    "itl_p50_ms",
    "server_us_per_token",
    "client_us_per_token",
)


def parse_arguments() -> argparse.Namespace:
    """Define the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server-command", required=True, help="{port} stands for its port")
    parser.add_argument("--model", required=True, help="the model's name in requests")
    parser.add_argument("--tokenizer", type=Path, help="its tokenizer.json, without /tokenize")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--requests-per-stream", type=int, default=4)
    parser.add_argument("--input-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--ready-timeout-s", type=float, default=60.0)
    parser.add_argument("--nice", type=int, default=0, help="as in cpu_serving.py")
    return parser.parse_args()


def measure(
    server: RunningServer, streams: int, arguments: argparse.Namespace
) -> dict[str, object]:
    """Load the server with one number of streams."""
    workload = Workload(
        num_prompts=streams * arguments.requests_per_stream,
        input_tokens=LengthRange(arguments.input_tokens, arguments.input_tokens),
        output_tokens=LengthRange(arguments.output_tokens, arguments.output_tokens),
        seed=streams,
    )
    plan = LoadPlan(
        server.url,
        model=arguments.model,
        concurrency=streams,
        num_warmup=streams,
        tokenizer_path=arguments.tokenizer,
    )
    before = CpuTimes.now(server.session_id)
    summary = run_load_blocking(plan, workload).summary
    after = CpuTimes.now(server.session_id)
    num_warmup_tokens = streams * arguments.output_tokens
    num_tokens = summary.num_output_tokens + num_warmup_tokens
    return {
        "streams": streams,
        "tokens_per_s": round(summary.output_tokens_per_s),
        "ttft_p50_ms": round(summary.ttft_ms.p50, 2) if summary.ttft_ms else None,
        "itl_p50_ms": round(summary.itl_ms.p50, 3) if summary.itl_ms else None,
        "server_us_per_token": round(1e6 * (after.server_s - before.server_s) / num_tokens, 1),
        "client_us_per_token": round(summary.client_cpu_us_per_token or 0.0, 1),
        "others_cores": round(after.others_since(before), 3),
        "errors": summary.errors,
        "memory": asdict(Memory.of_session(server.session_id)),
    }


if __name__ == "__main__":
    main()
