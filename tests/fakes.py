"""Small honest implementations for tests: no torch, no clock, no network."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection

from wheelpit.scheduling.batch import SampledToken, ScheduledBatch, ScheduledSequence
from wheelpit.scheduling.logprobs import TokenLogprobs


class ManualClock:
    """A clock that stands still until told. Call it for the time in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        assert seconds >= 0.0, "time does not run backwards"
        self.now += seconds


class ManualTimers:
    """Timers that ring as a ManualClock is moved by `advance`; `len` is how many are set."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._living: set[int] = set()
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._living)

    def __call__(self, delay_s: float, callback: Callable[[], None]) -> ManualTimer:
        number = next(self._numbers)
        heapq.heappush(self._entries, (self._clock.now + delay_s, number, callback))
        self._living.add(number)
        return ManualTimer(self, number)

    def cancel(self, number: int) -> None:
        self._living.discard(number)

    def advance(self, seconds: float) -> None:
        """Move the clock, stopping at each moment at which something rings."""
        end = self._clock.now + seconds
        while self._entries and self._entries[0][0] <= end:
            moment, number, callback = heapq.heappop(self._entries)
            if number in self._living:
                self._living.remove(number)
                self._clock.now = max(moment, self._clock.now)
                callback()
        self._clock.now = end


class ManualTimer:
    """One of them, to be cancelled."""

    def __init__(self, timers: ManualTimers, number: int) -> None:
        self._timers = timers
        self._number = number

    def cancel(self) -> None:
        self._timers.cancel(self._number)


class FakeRunner:
    """What the engine core needs of a model runner, without a model.

    The next token is a function of the sequence's length, last token and seed, so a stream is the
    same however it was batched, preempted or replayed. `expected` predicts a whole stream.

    vocab_size: tokens are in [first_token, vocab_size); keep EOS below first_token and no
    sequence ends before its time.
    failing: request ids (of the engine) whose next token is an error; may be changed at any time.
    step_s: what a step adds to `forward_s`; nothing sleeps.
    """

    dtype = "float32"
    compute_plan = None
    device = "cpu"

    def __init__(
        self,
        *,
        num_blocks: int = 256,
        block_size: int = 16,
        vocab_size: int = 256,
        first_token: int = 3,
        failing: Collection[str] = (),
        step_s: float = 0.0,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.vocab_size = vocab_size
        self.first_token = first_token
        self.failing = set(failing)
        self.step_s = step_s
        self.forward_s = 0.0
        self.num_steps = 0

    def run(self, batch: ScheduledBatch) -> list[SampledToken]:
        """Answer for each scheduled sequence, in the batch's order."""
        self.num_steps += 1
        self.forward_s += self.step_s
        return [self._answer(scheduled) for scheduled in batch.sequences]

    def expected(self, prompt_token_ids: list[int], num_tokens: int, seed: int = 0) -> list[int]:
        """Return the first num_tokens that a request with this prompt and seed gets."""
        token_ids = list(prompt_token_ids)
        for _ in range(num_tokens):
            token_ids.append(self.next_token(token_ids, seed))
        return token_ids[len(prompt_token_ids) :]

    def next_token(self, token_ids: list[int], seed: int) -> int:
        mixed = token_ids[-1] * 31 + len(token_ids) * 17 + seed * 7
        return self.first_token + mixed % (self.vocab_size - self.first_token)

    def _answer(self, scheduled: ScheduledSequence) -> SampledToken:
        sequence = scheduled.sequence
        if self.failing and sequence.request_id in self.failing:
            return SampledToken(error=f"{sequence.request_id} was told to fail")
        params = sequence.params
        if params.logprobs is None and params.prompt_logprobs is None:
            if not scheduled.samples:
                return SampledToken()
            return SampledToken(self.next_token(sequence.token_ids, sequence.seed))
        return self._answer_with_logprobs(scheduled)

    def _answer_with_logprobs(self, scheduled: ScheduledSequence) -> SampledToken:
        sequence, params = scheduled.sequence, scheduled.sequence.params
        prompt_logprobs: tuple[TokenLogprobs, ...] = ()
        if params.prompt_logprobs is not None:
            end = min(scheduled.start + scheduled.num_tokens, sequence.num_prompt_tokens - 1)
            prompt_logprobs = tuple(
                self._logprobs(sequence.token_ids[position + 1], params.prompt_logprobs)
                for position in range(scheduled.start, end)
            )
        if not scheduled.samples:
            return SampledToken(prompt_logprobs=prompt_logprobs)
        token_id = self.next_token(sequence.token_ids, sequence.seed)
        logprobs = None
        if params.logprobs is not None:
            logprobs = self._logprobs(token_id, params.logprobs)
        return SampledToken(token_id, logprobs, prompt_logprobs)

    def _logprobs(self, token_id: int, count: int) -> TokenLogprobs:
        """Score the token first, then itself and its successors as the most likely ones."""
        count = self.vocab_size if count == -1 else count
        top = [(token_id + offset) % self.vocab_size for offset in range(count)]
        ranks = [1, *range(1, count + 1)]
        return TokenLogprobs([token_id, *top], [-0.5 * rank for rank in ranks], ranks)
