"""The model of a simulation: tokens are a function of those before them, and its cache is checked.

`expected` says what a sequence gets when it runs alone and undisturbed. `SimulatedRunner` computes
the same step by step; at each position it "caches" a fingerprint of all tokens up to there, and
demands to find those of a sequence's whole context in the sequence's blocks.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from tests.fakes import ManualClock
from tests.simulation.draw import VOCAB_SIZE
from tests.simulation.plan import Plan, Poison, RequestPlan
from tests.simulation.violation import Violation
from wheelpit.request import SamplingParams
from wheelpit.scheduling.batch import SampledToken, ScheduledBatch, ScheduledSequence
from wheelpit.scheduling.logprobs import TokenLogprobs
from wheelpit.scheduling.sequence import Sequence

EOS_TOKEN_IDS = [0, 1]
LETTERS = "".join(chr(ord("a") + token_id) for token_id in range(VOCAB_SIZE))


def extend_marks(marks: list[int], token_ids: list[int]) -> None:
    """Add the marks that are missing: each stands for all tokens up to its own."""
    current = marks[-1] if marks else 0
    for token_id in token_ids[len(marks) :]:
        current = zlib.crc32(token_id.to_bytes(1, "little"), current)
        marks.append(current)


def token_after(mark: int, seed: int) -> int:
    return (mark ^ (seed * 2654435761)) % 4294967291 % VOCAB_SIZE


@dataclass(frozen=True, slots=True)
class Answer:
    """What one sequence is to get. text: what its consumer may see of it."""

    token_ids: list[int]
    finish_reason: str
    stop_reason: int | str | None
    text: str


def expected(plan: Plan, request: RequestPlan, index: int) -> Answer:
    """Generate alone, from the description of the request."""
    marks: list[int] = []
    token_ids = list(request.prompt)
    num_prompt_tokens = len(token_ids)
    max_tokens = min(request.max_tokens, plan.config.model.max_model_len - num_prompt_tokens)
    text = ""
    while True:
        extend_marks(marks, token_ids)
        token_id = token_after(marks[-1], request.seed + index)
        token_ids.append(token_id)
        output = token_ids[num_prompt_tokens:]
        if len(output) >= request.min_tokens:
            if not request.ignore_eos and token_id in EOS_TOKEN_IDS:
                return Answer(output, "stop", token_id or None, text)
            if token_id in request.stop_token_ids:
                return Answer(output, "stop", token_id, text)
        text += LETTERS[token_id]
        for stop in request.stop:
            if text.endswith(stop):
                return Answer(output, "stop", stop, text.removesuffix(stop))
        if len(output) >= max_tokens or len(token_ids) >= plan.max_num_tokens:
            return Answer(output, "length", None, text)


class SimulatedRunner:
    """The runner of one engine. Written only by its SimulatedEngine.

    before_run: called with each batch before it is computed; may raise.
    """

    dtype = "float32"
    compute_plan = None
    device = "cpu"
    vocab_size = VOCAB_SIZE

    def __init__(
        self, plan: Plan, clock: ManualClock, before_run: Callable[[ScheduledBatch], None]
    ) -> None:
        self.num_blocks = plan.num_blocks
        self.block_size = plan.config.cache.block_size
        self.forward_s = 0.0
        self._plan = plan
        self._clock = clock
        self._before_run = before_run
        self._memory = [[-1] * self.block_size for _ in range(self.num_blocks)]
        self._marks: dict[str, list[int]] = {}

    def run(self, batch: ScheduledBatch) -> list[SampledToken]:
        self._before_run(batch)
        seconds = self._plan.step_s + self._plan.token_s * batch.num_tokens
        self._clock.advance(seconds)
        self.forward_s += seconds
        for scheduled in batch.sequences:
            self._write(scheduled)
        return [self._answer(scheduled) for scheduled in batch.sequences]

    def _marks_of(self, sequence: Sequence) -> list[int]:
        marks = self._marks.setdefault(sequence.request_id, [])
        if len(marks) < len(sequence.token_ids):
            extend_marks(marks, sequence.token_ids)
        return marks

    def _write(self, scheduled: ScheduledSequence) -> None:
        sequence, size = scheduled.sequence, self.block_size
        marks = self._marks_of(sequence)
        salt = 1 if sequence.cache_salt else 0
        for position in range(scheduled.start, scheduled.start + scheduled.num_tokens):
            block = self._memory[sequence.block_ids[position // size]]
            block[position % size] = marks[position] + salt

    def _answer(self, scheduled: ScheduledSequence) -> SampledToken:
        sequence, end = scheduled.sequence, scheduled.start + scheduled.num_tokens
        marks = self._marks_of(sequence)
        salt = 1 if sequence.cache_salt else 0
        params = sequence.params
        found: list[int] = []
        for block_id in sequence.block_ids:
            found += self._memory[block_id]
        wanted = [mark + salt for mark in marks[:end]] if salt else marks[:end]
        if found[:end] != wanted:
            number, index = identify(sequence.request_id, params)
            raise Violation(f"sequence {number}.{index} reads what it has not computed")
        poison = poison_of(self._plan, sequence)
        if poison is not None and poison[1].kind == "nan":
            return SampledToken(error="logits are not finite")
        prompt_logprobs: tuple[TokenLogprobs, ...] = ()
        if params.prompt_logprobs is not None:
            last = min(end, sequence.num_prompt_tokens - 1)
            prompt_logprobs = tuple(
                _score(sequence.token_ids[position + 1], marks[position])
                for position in range(scheduled.start, last)
            )
        if not scheduled.samples:
            return SampledToken(prompt_logprobs=prompt_logprobs)
        token_id = token_after(marks[end - 1], sequence.seed)
        logprobs = None if params.logprobs is None else _score(token_id, marks[end - 1])
        return SampledToken(token_id, logprobs, prompt_logprobs)


def identify(sequence_id: str, params: SamplingParams) -> tuple[int, int]:
    """Whose sequence it is: (number of the request, index among its n)."""
    assert params.extra_args is not None
    return params.extra_args["number"], int(sequence_id.split("_")[0]) if params.n > 1 else 0


def poison_of(plan: Plan, sequence: Sequence) -> tuple[int, Poison] | None:
    """What the sequence does to a step now: (its request, that)."""
    number, index = identify(sequence.request_id, sequence.params)
    poison = plan.request(number).poison
    if poison is None or poison.index != index or sequence.num_output_tokens < poison.num_tokens:
        return None
    return number, poison


def poisons_in(plan: Plan, batch: ScheduledBatch) -> list[tuple[int, Poison]]:
    """(request, what it does) of every sequence of a batch that spoils the step."""
    if not plan.has_poison:
        return []
    found = [poison_of(plan, scheduled.sequence) for scheduled in batch.sequences]
    return [each for each in found if each is not None]


def _score(token_id: int, mark: int) -> TokenLogprobs:
    return TokenLogprobs([token_id], [logprob_after(mark)], [1])


def logprob_after(mark: int) -> float:
    return -float(mark % 1000)
