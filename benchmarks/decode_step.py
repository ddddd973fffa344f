"""Time the runner alone: a decode step at several batch sizes, a prefill, the engine's overhead.

No scheduler, no sockets: what remains is the model's forward pass, the sampler and the making of
their inputs. Without arguments it times the built-in model's shape with random weights.

    python benchmarks/decode_step.py [--model FOLDER] [--dtype auto] [--threads N] [--eager]
    python benchmarks/decode_step.py --ops [--threads N]

With --ops it times single operations instead, each beside what it was chosen over.

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

STARTED = time.perf_counter()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from wheelpit.config import CacheConfig, EngineConfig, ModelOptions, SchedulerConfig  # noqa: E402
from wheelpit.kernels import onednn  # noqa: E402
from wheelpit.kernels.attention_inputs import DecodeGroup  # noqa: E402
from wheelpit.kernels.reference import attend_decodes, rms_norm  # noqa: E402
from wheelpit.request import SamplingParams  # noqa: E402
from wheelpit.runner.kv_cache import KVCache  # noqa: E402
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


def best_us(function: Callable[..., object], *args: object) -> float:
    """Return the microseconds of the fastest of many calls."""
    times = []
    for _ in range(200):
        started = time.perf_counter()
        function(*args)
        times.append(time.perf_counter() - started)
    return round(1e6 * min(times), 1)


@torch.inference_mode()
def time_ops() -> None:
    """Print what single operations cost, with warm caches."""
    for rows in (1, 16, 128):
        x = torch.randn(rows, 384)
        gain, floor = torch.ones(384), torch.tensor(0.06)
        print(f"norm [{rows}, 384]: ours {best_us(rms_norm, x, gain, floor)} us,", end=" ")
        print(f"F.rms_norm {best_us(F.rms_norm, x, (384,), gain, 1e-5)} us")
        for dtype in (torch.float32, torch.bfloat16):
            weight, y = torch.randn(2048, 384, dtype=dtype), x.to(dtype)
            if onednn.can_pack(weight):
                packed_us = best_us(onednn.PackedLinear(weight), y, None)
                plain_us = best_us(F.linear, y, weight)
                print(f"[{rows}, 384] x [384, 2048] {dtype}: packed {packed_us} us,", end=" ")
                print(f"F.linear {plain_us} us")
    for num_sequences, num_blocks in ((1, 11), (16, 11), (16, 22)):
        cache = KVCache.of(torch.randn(1, 2000, 16, 6, 64).bfloat16()).layers[0]
        heads = torch.randn(num_sequences, 12, 64).bfloat16()
        blocks = torch.randperm(2000)[: num_sequences * num_blocks]
        mask = torch.zeros(num_sequences, 1, 1, 16 * num_blocks, dtype=torch.bfloat16)
        positions = torch.full((num_sequences,), 16 * num_blocks - 1)
        group = DecodeGroup(num_sequences, blocks, positions, None, mask)
        us = best_us(attend_decodes, heads, cache, group)
        print(f"attention of {num_sequences} sequences of {num_blocks} blocks: {us} us")
    logits = torch.randn(1, 8192)
    print(f"top 64 of 8192: {best_us(torch.topk, logits, 64)} us,", end=" ")
    print(f"torch.sort {best_us(logits.sort)} us,", end=" ")
    print(f"numpy's sort {best_us(np.sort, logits.numpy())} us,", end=" ")
    print(f"argmax {best_us(logits.argmax)} us,", end=" ")
    print(f"numpy's argmax {best_us(logits.numpy().argmax)} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model folder; the built-in shape if left out")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--eager", action="store_true", help="torch's own kernels only")
    parser.add_argument("--ops", action="store_true", help="time single operations instead")
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    if args.ops:
        torch.set_num_threads(args.threads or torch.get_num_threads())
        time_ops()
        return
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
                enforce_eager=args.eager,
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
