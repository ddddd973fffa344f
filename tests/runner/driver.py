"""A scheduler of a few lines for tests: the caller says which tokens each step computes."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

from wheelpit.config import CacheConfig, EngineConfig, ModelOptions, SchedulerConfig
from wheelpit.request import SamplingParams
from wheelpit.runner.model_runner import ModelRunner
from wheelpit.scheduling.batch import SampledToken, ScheduledBatch, ScheduledSequence
from wheelpit.scheduling.sequence import Sequence

GREEDY = SamplingParams(temperature=0.0, max_tokens=None)


def make_runner(folder: Path, **options: Any) -> ModelRunner:
    """Load a folder; options: dtype, load_format, max_model_len, block_size, num_blocks,
    compute_plan.
    """
    model = {"dtype": "float32", "max_model_len": 256, "device": "cpu"}
    model |= {k: v for k, v in options.items() if k in ("dtype", "load_format", "max_model_len")}
    cache = {"block_size": 8, "num_blocks": 400}
    cache |= {k: v for k, v in options.items() if k in ("block_size", "num_blocks")}
    config = EngineConfig(
        model=ModelOptions(folder=str(folder), **model),
        cache=CacheConfig(**cache),
        scheduler=SchedulerConfig(max_num_seqs=32),
        compute_plan=options.get("compute_plan"),
    )
    return ModelRunner(config)


class Driver:
    """Sequences over a runner, with blocks handed out in a scattered order and never reused."""

    def __init__(self, runner: ModelRunner) -> None:
        self.runner = runner
        count = runner.num_blocks
        self._free = [block * 7919 % count for block in range(count)]
        assert len(set(self._free)) == count, "7919 must not divide the number of blocks"

    def add(self, prompt: Seq[int], params: SamplingParams = GREEDY, **fields: Any) -> Sequence:
        return Sequence(
            request_id=f"r{len(self._free)}",
            token_ids=list(prompt),
            num_prompt_tokens=len(prompt),
            params=params,
            max_tokens=1000,
            seed=fields.pop("seed", params.seed or 0),
            **fields,
        )

    def step(self, work: Seq[tuple[Sequence, int]]) -> list[SampledToken]:
        """Compute the next n tokens of each sequence and append what was sampled."""
        scheduled = []
        for sequence, num_tokens in work:
            start = sequence.num_computed_tokens
            end = start + num_tokens
            assert end <= sequence.num_tokens
            while len(sequence.block_ids) * self.runner.block_size < end:
                sequence.block_ids.append(self._free.pop())
            samples = end == sequence.num_tokens
            scheduled.append(ScheduledSequence(sequence, start, num_tokens, samples))
        answers = self.runner.run(ScheduledBatch(tuple(scheduled)))
        for one, answer in zip(scheduled, answers, strict=True):
            one.sequence.num_computed_tokens += one.num_tokens
            assert one.samples == (answer.token_id is not None or answer.error is not None)
            if answer.token_id is not None:
                one.sequence.token_ids.append(answer.token_id)
        return answers

    def finish(self, sequences: Seq[Sequence], num_outputs: int) -> None:
        """Run all of them together, whole prompts first, until each has its outputs."""
        while work := [s for s in sequences if s.num_output_tokens < num_outputs]:
            self.step([(s, s.num_tokens - s.num_computed_tokens) for s in work])


def outputs(sequence: Sequence) -> list[int]:
    return sequence.token_ids[sequence.num_prompt_tokens :]
