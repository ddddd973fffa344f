"""Time the runner alone: a decode step at several batch sizes, a prefill, the engine's overhead.

No scheduler, no sockets: what remains is the model's forward pass, the sampler and the making of
their inputs. Without arguments it times the built-in model's shape with random weights.

    python benchmarks/decode_step.py [--model FOLDER] [--dtype auto] [--threads N]

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path

STARTED = time.perf_counter()

from wheelpit.config import CacheConfig, EngineConfig, ModelOptions, SchedulerConfig  # noqa: E402
from wheelpit.request import SamplingParams  # noqa: E402
from wheelpit.runner.model_runner import ModelRunner  # noqa: E402
from wheelpit.scheduling.batch import ScheduledBatch, ScheduledSequence  # noqa: E402
from wheelpit.scheduling.sequence import Sequence  # noqa: E402

IMPORT_S = time.perf_counter() - STARTED

BUILTIN_SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 8192,
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "intermediate_size": 1024,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
CONTEXT = 160
PREFILL = 1024


def make_sequence(index: int, length: int, block_size: int, params: SamplingParams) -> Sequence:
    """Return a sequence of `length` tokens with blocks for 512 more, its own."""
    num_blocks = -(-(length + 512) // block_size)
    return Sequence(
        request_id=str(index),
        token_ids=[(7 * index + 13 * i) % 8192 for i in range(length)],
        num_prompt_tokens=length,
        params=params,
        max_tokens=1024,
        seed=index,
        block_ids=[index * num_blocks + i for i in range(num_blocks)],
    )


def time_decode(
    runner: ModelRunner, batch_size: int, params: SamplingParams, num_steps: int
) -> dict[str, float]:
    """Return the median milliseconds of a step, its fastest, and those outside the forward."""
    sequences = [make_sequence(i, CONTEXT, runner.block_size, params) for i in range(batch_size)]
    for sequence in sequences:
        runner.run(ScheduledBatch((ScheduledSequence(sequence, 0, CONTEXT, False),)))
    times, overheads = [], []
    for _ in range(num_steps):
        # The context stays as it is: the same token is computed again and again.
        batch = ScheduledBatch(
            tuple(ScheduledSequence(sequence, CONTEXT - 1, 1, True) for sequence in sequences)
        )
        before = runner.forward_s
        started = time.perf_counter()
        runner.run(batch)
        times.append(time.perf_counter() - started)
        overheads.append(times[-1] - (runner.forward_s - before))
    return {
        "median_ms": round(1e3 * statistics.median(times), 2),
        "best_ms": round(1e3 * min(times), 2),
        "outside_forward_ms": round(1e3 * statistics.median(overheads), 2),
    }


def time_prefill(runner: ModelRunner) -> float:
    """Return prompt tokens per second of one long prompt."""
    sequence = make_sequence(0, PREFILL, runner.block_size, SamplingParams(temperature=0.0))
    times = []
    for _ in range(5):
        started = time.perf_counter()
        runner.run(ScheduledBatch((ScheduledSequence(sequence, 0, PREFILL, True),)))
        times.append(time.perf_counter() - started)
    return PREFILL / statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model folder; the built-in shape if left out")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.model or scratch
        if args.model is None:
            (Path(scratch) / "config.json").write_text(json.dumps(BUILTIN_SHAPE))
        config = EngineConfig(
            model=ModelOptions(
                folder=folder,
                dtype=args.dtype,
                load_format="auto" if args.model else "dummy",
                max_model_len=2048,
            ),
            cache=CacheConfig(num_blocks=2048),
            scheduler=SchedulerConfig(),
            num_threads=args.threads,
        )
        phases: dict[str, float] = {"import": round(IMPORT_S, 2)}
        runner = ModelRunner(config, on_phase=lambda n, s: phases.update({n: round(s, 2)}))
    kinds = {
        "greedy": SamplingParams(temperature=0.0),
        "top_p": SamplingParams(temperature=0.8, top_p=0.95, seed=1),
    }
    result: dict[str, object] = {"dtype": runner.dtype, "start_s": phases}
    for kind, params in kinds.items():
        for batch_size in (1, 4, 16):
            found = time_decode(runner, batch_size, params, args.steps)
            result[f"{kind} batch {batch_size}"] = found
            print(f"{kind:7} batch {batch_size:2}: {found}")
    result["prefill_tokens_per_s"] = round(time_prefill(runner))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
