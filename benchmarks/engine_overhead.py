"""Where an engine step's milliseconds go while a batch decodes, in process and without HTTP.

    python benchmarks/engine_overhead.py --model MODEL [--sequences 1 16] [--steps 200]

Three parts, as EngineCore counts them: the model's forward pass; the rest of the runner (building
inputs, sampling); the rest of the step (scheduling, updating, describing). The last two are the
engine's overhead.
"""

import argparse
import json
import os
import random
import shlex
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from machine import describe_machine, set_niceness

from wheelpit.engine.arg_utils import EngineArgs
from wheelpit.engine.core import EngineCore
from wheelpit.engine.messages import AddRequest, EngineStats
from wheelpit.request import SamplingParams
from wheelpit.runner.model_runner import ModelRunner

NUM_WARMUP_STEPS = 10


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Milliseconds of one step, by part."""

    forward_ms: float
    runner_ms: float
    core_ms: float

    @classmethod
    def between(cls, before: EngineStats, after: EngineStats) -> "StepTimes":
        """Take one step's share out of the engine's running sums."""
        forward_s = after.forward_s - before.forward_s
        run_s = after.run_s - before.run_s
        step_s = after.step_s - before.step_s
        return cls(1e3 * forward_s, 1e3 * (run_s - forward_s), 1e3 * (step_s - run_s))


def main() -> None:
    """Measure each batch size and print a table, then JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--input-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--repetition-penalty", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nice", type=int, default=0, help="as in cpu_serving.py")
    arguments = parser.parse_args()
    max_model_len = arguments.input_tokens + arguments.steps + NUM_WARMUP_STEPS + 8
    config = EngineArgs(
        model=str(arguments.model),
        device="cpu",
        num_threads=arguments.threads,
        max_model_len=max_model_len,
        max_num_seqs=max(arguments.sequences),
    ).create_engine_config(str(arguments.model), max_model_len)
    core = EngineCore(config, ModelRunner(config), time.perf_counter)
    if arguments.nice:
        set_niceness(os.getpid(), arguments.nice)
    rows = [measure(core, number, arguments) for number in arguments.sequences]
    print("| sequences | forward ms | inputs and sampling ms | scheduling ms | overhead |")
    print("|---:|---:|---:|---:|---:|")
    for row in rows:
        print("| {sequences} | {forward_ms} | {runner_ms} | {core_ms} | {overhead} |".format(**row))
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": describe_machine(),
        "rows": rows,
    }
    print(json.dumps(report))


def measure(
    core: EngineCore, num_sequences: int, arguments: argparse.Namespace
) -> dict[str, object]:
    """Prefill a batch, then take medians over its decode steps."""
    rng = random.Random(num_sequences)
    names = [f"{num_sequences}-{index}" for index in range(num_sequences)]
    for name in names:
        prompt = [rng.randrange(core.runner.vocab_size) for _ in range(arguments.input_tokens)]
        params = SamplingParams(
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            repetition_penalty=arguments.repetition_penalty,
            ignore_eos=True,
        )
        core.add(AddRequest(name, prompt, params, arguments.steps + NUM_WARMUP_STEPS + 8, seed=0))
    while core.stats().num_scheduled_tokens != num_sequences or core.stats().num_waiting:
        core.step()
    for _ in range(NUM_WARMUP_STEPS):
        core.step()
    times = []
    before = core.stats()
    for _ in range(arguments.steps - num_sequences):
        core.step()
        after = core.stats()
        times.append(StepTimes.between(before, after))
        before = after
    core.abort(names)
    forward_ms = statistics.median(t.forward_ms for t in times)
    runner_ms = statistics.median(t.runner_ms for t in times)
    core_ms = statistics.median(t.core_ms for t in times)
    overhead = (runner_ms + core_ms) / (forward_ms + runner_ms + core_ms)
    return {
        "sequences": num_sequences,
        "forward_ms": round(forward_ms, 3),
        "runner_ms": round(runner_ms, 3),
        "core_ms": round(core_ms, 3),
        "overhead": f"{overhead:.0%}",
    }


if __name__ == "__main__":
    main()
