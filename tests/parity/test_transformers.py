"""Every architecture against transformers: logits, and greedy tokens over 64 steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.parity.checkpoints import CHECKPOINTS, VOCAB_SIZE, Checkpoint
from tests.runner.driver import Driver, make_runner, outputs
from wheelpit.request import SamplingParams


def prompt_of(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB_SIZE, (length,), generator=generator).tolist()


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda checkpoint: checkpoint.name)
def test_logits_and_greedy_tokens_are_those_of_transformers(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    expected_model = checkpoint.save(tmp_path)
    driver = Driver(make_runner(tmp_path))
    sequence = driver.add(prompt_of(45), SamplingParams(temperature=0.0, prompt_logprobs=-1))
    first = driver.step([(sequence, 45)])[0]
    driver.finish([sequence], 64)

    with torch.inference_mode():
        logits = expected_model(torch.tensor([sequence.token_ids])).logits[0].float()
    expected = logits.argmax(-1).tolist()
    assert outputs(sequence) == expected[44:-1]
    reference = logits.log_softmax(-1)
    assert len(first.prompt_logprobs) == 44
    for position, scores in enumerate(first.prompt_logprobs):
        ours = torch.empty(VOCAB_SIZE)
        ours[scores.token_ids[1:]] = torch.tensor(scores.logprobs[1:])
        torch.testing.assert_close(ours, reference[position], atol=1e-4, rtol=1e-4)
