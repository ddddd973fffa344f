"""Decide what the next step computes, and take in what it brought.

The engine's step calls `schedule`, lets the runner compute the batch, and calls `update`. Nothing
here does I/O, reads a clock or knows a tensor.

The life of a sequence

    add ───> WAITING ───────────── start ──────────────> RUNNING ── update ──> FINISHED
             by rank                                     by rank
               ^  num_computed_tokens = 0, no blocks        │
               └────────────────── preempt ─────────────────┘

There is one quantity: the gap between the tokens a sequence has and those whose keys and values
are in its blocks. A step closes a part of the gap; whoever's gap is closed gets a token sampled,
which opens it by one. A prompt, a chunk of one, the rest of one after a prefix hit, everything
again after a preemption, one token of decoding: all the same to the code below.

    token_ids   p p p p p p p p p p p p p p p p p p o o o
                └── cached ───┘└ computed ┘└──── gap ────┘
                                           └ this step ┘    samples only when it reaches the end

`schedule` goes through the running sequences by rank, then starts waiting ones:

- Each running sequence gets at least one token a step: a prefill leaves one token of the budget
  for each sequence behind it (the budget is at least the number of seats). So decodes never
  wait for prefills, and what a prefill adds to the length of a step is limited, too: see
  `_prefill_budget`.
- A running sequence that needs a block when none is free takes it from the one of the largest
  rank, which goes back to waiting and starts over (its named blocks stay cached, so starting over
  is often cheap). The victim is always behind the taker or the taker itself, hence never in the
  batch yet. The smallest rank is never a victim: it always progresses, and so, in turn, does
  everybody. `add` refuses what even an empty cache could not hold, and a sequence that has filled
  the whole cache ends with "length".
- The head is the first by rank of the tenant whose turn it is, among those that have a seat left
  (policies.py, tenants.py). It starts only if all of its known tokens fit into the blocks that are
  free, less those promised to the rest of a running prefill, less one for each running sequence to
  grow into; otherwise it would soon be preempted by them and have worked in vain. It is the head
  that starts or nobody: the head is never overtaken, and fits at the latest when nothing runs.
- A head that is urgent enough (`Policy.displaces`) does not wait for a seat or for blocks: the
  running sequences of the largest ranks go back to waiting until it has both.
- A step that had to preempt for blocks starts nobody, so that no sequence changes places twice.

Time is an argument. `expire` ends what has missed a deadline; call it before `schedule`, and no
step works on anything that is over.

The life of a block is drawn in block_pool.py. A sequence takes blocks as its tokens are scheduled;
`update` names those that the step has filled, and only then can others find them. All of a
sequence's blocks are given up at once when it ends, whatever it was doing. If that happens during
a step (an abort), the step may still write to them: that is harmless, because only unnamed
positions are written, and whoever gets the blocks next writes them in a later step before reading.

`schedule` changes no sequence's progress: `num_computed_tokens` moves in `update`, from what the
batch says was computed. So a batch whose step failed can be dropped and scheduled again.
Overlapping steps would need a count of tokens in flight beside it, and nothing else to change.
"""

from __future__ import annotations

from bisect import insort
from collections import abc
from collections.abc import Mapping

from wheelpit.config import CacheConfig, SchedulerConfig, require
from wheelpit.errors import ValidationError
from wheelpit.scheduling import invariants
from wheelpit.scheduling.batch import SampledToken, ScheduledBatch, ScheduledSequence
from wheelpit.scheduling.block_pool import BlockPool
from wheelpit.scheduling.expiry import Expiry
from wheelpit.scheduling.forecast import Forecast
from wheelpit.scheduling.outputs import SchedulerStats, SequenceOutput
from wheelpit.scheduling.policies import make_policy
from wheelpit.scheduling.prefix_cache import PrefixCache
from wheelpit.scheduling.sequence import Rank, Sequence, SequenceStatus
from wheelpit.scheduling.stopping import FinishReason, find_stop
from wheelpit.scheduling.tenants import Tenants, TenantShare
from wheelpit.scheduling.waiting_queue import WaitingQueue

SHORT_PROMPT_TOKENS = 256
"""A prompt that has no more to compute is short; so many tokens of such ones start in a step."""


class Scheduler:
    """All sequences of an engine and the blocks they own. The only writer of both."""

    def __init__(
        self, config: SchedulerConfig, cache: CacheConfig, num_blocks: int, max_model_len: int
    ) -> None:
        if not config.enable_chunked_prefill:
            require(
                config.max_num_batched_tokens >= max_model_len,
                "max_num_batched_tokens",
                config.max_num_batched_tokens,
                f"at least max_model_len={max_model_len} without chunked prefill",
            )
        self._config = config
        self._block_size = cache.block_size
        self._max_model_len = max_model_len
        self._max_cache_tokens = num_blocks * cache.block_size
        self._max_num_tokens = min(max_model_len, self._max_cache_tokens)
        self._max_chunk = config.max_num_batched_tokens
        if config.enable_chunked_prefill and config.long_prefill_token_threshold:
            self._max_chunk = min(self._max_chunk, config.long_prefill_token_threshold)
        self._policy = make_policy(config)
        self._forecast = Forecast(self._max_chunk)

        self._pool = BlockPool(num_blocks)
        self._prefix_cache = (
            PrefixCache(self._pool, cache.block_size) if cache.enable_prefix_caching else None
        )
        self._sequences: dict[str, Sequence] = {}
        self._running: list[Sequence] = []  # by rank
        self._tenants = Tenants()
        self._waiting = WaitingQueue(self._policy, self._tenants, self._forecast)
        self._expiry = Expiry()
        self._started: list[Sequence] = []
        self._scheduled_s = 0.0
        self._max_tokens_now = config.max_num_batched_tokens
        self._max_seqs_now = config.max_num_seqs
        self._prefill_left = 0
        self._short_prefill_left = 0
        self._unlimited: Sequence | None = None
        self._is_prefilling = False
        """Has the last step left a prefill unfinished?"""
        self._num_added = 0
        self._num_preemptions = 0
        self._num_timeouts = 0
        self._prefix_cache_queries = 0
        self._prefix_cache_hits = 0

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    def add(self, sequence: Sequence, now: float) -> None:
        """Queue a new sequence. Raises ValidationError for one that can never run."""
        self._refuse_unservable(sequence)
        assert sequence.status is SequenceStatus.WAITING, f"{sequence.request_id} is not new"
        sequence.added_s = now
        sequence.number = self._num_added
        self._num_added += 1
        sequence.rank = self._policy.rank(sequence, now, self._forecast)
        self._sequences[sequence.request_id] = sequence
        self._tenants.on_waiting(sequence)
        self._waiting.push(sequence)
        self._expiry.watch(sequence)

    def abort(self, request_id: str) -> Sequence | None:
        """End a sequence in whatever state it is and free its blocks at once.

        If it is in a step now, `update` drops what that brings. None if there is no such sequence.
        """
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._remove(sequence)
        return sequence

    def finish(
        self, sequence: Sequence, reason: FinishReason, error: str | None = None
    ) -> SequenceOutput | None:
        """End a sequence from outside, as abort does, with an output to deliver.

        None if it has ended already.
        """
        if sequence.is_finished:
            return None
        self._remove(sequence)
        return SequenceOutput(
            sequence, finish_reason=reason, is_first=not sequence.has_output, error=error
        )

    def fail(self, sequence: Sequence, message: str) -> SequenceOutput | None:
        """End a sequence that cannot go on; its blocks are not trusted as a prefix of others."""
        if self._prefix_cache is not None:
            self._prefix_cache.forget(sequence)
        return self.finish(sequence, "error", message)

    def expire(self, now: float) -> list[SequenceOutput]:
        """End every sequence that has missed a deadline, with "abort" and its name."""
        outputs = []
        for sequence, missed in self._expiry.missed(now):
            self._remove(sequence)
            self._num_timeouts += 1
            outputs.append(
                SequenceOutput(
                    sequence,
                    finish_reason="abort",
                    stop_reason=missed,
                    is_first=not sequence.has_output,
                )
            )
        return outputs

    def set_tenants(self, shares: Mapping[str, TenantShare], default: TenantShare) -> None:
        """Change the weights and seats of tenants, from the next start on."""
        self._tenants.set_shares(shares, default)

    def queue(self) -> list[Sequence]:
        """Those that wait, in the order in which they would start if nothing came in between."""
        return self._waiting.in_order()

    def reset_prefix_cache(self) -> bool:
        """Forget all cached blocks. False, and nothing happens, while any block is in use."""
        return self._prefix_cache is None or self._prefix_cache.reset()

    def stats(self) -> SchedulerStats:
        """Take a snapshot."""
        return SchedulerStats(
            num_running=len(self._running),
            num_waiting=len(self._waiting),
            num_blocks=self._pool.num_blocks,
            num_free_blocks=self._pool.num_free,
            kv_cache_usage=self._pool.usage,
            num_preemptions=self._num_preemptions,
            num_timeouts=self._num_timeouts,
            prefix_cache_queries=self._prefix_cache_queries,
            prefix_cache_hits=self._prefix_cache_hits,
        )

    def shrink(self, batch: ScheduledBatch) -> bool:
        """Make steps half as large as this one, which the memory could not hold; they grow again
        with each that succeeds. False, and nothing happens, if it cannot be made smaller.
        """
        if batch.num_tokens <= 1:
            return False
        if self._config.enable_chunked_prefill:
            self._max_tokens_now = batch.num_tokens // 2
        elif len(batch.sequences) == 1:
            return False
        self._max_seqs_now = max(1, len(batch.sequences) // 2)
        while len(self._running) > self._max_seqs_now:
            self._preempt(self._running.pop())
        return True

    def _grow_again(self) -> None:
        """Undo a part of what `shrink` did."""
        limits = self._config
        self._max_tokens_now += max(1, self._max_tokens_now // 8)
        self._max_tokens_now = min(self._max_tokens_now, limits.max_num_batched_tokens)
        if self._max_tokens_now > self._max_seqs_now:
            self._max_seqs_now = min(self._max_seqs_now + 1, limits.max_num_seqs)

    def schedule(self, now: float) -> ScheduledBatch:
        """Choose the work of the next step and give it the blocks it needs."""
        self._scheduled_s = now
        scheduled: list[ScheduledSequence] = []
        self._started = []
        if self._policy.is_timed:
            self._rerank_running(now)
            self._waiting.rerank_all(now)
        head = self._waiting.head(now)
        if head is not None:
            self._displace(head)
        self._unlimited = None
        self._short_prefill_left = SHORT_PROMPT_TOKENS
        self._prefill_left = self._prefill_budget(head)
        num_preemptions = self._num_preemptions
        budget, num_promised = self._schedule_running(scheduled, head)
        if self._waiting and self._num_preemptions == num_preemptions:
            self._start_waiting(scheduled, budget, num_promised, now)
        self._is_prefilling = not all(item.samples for item in scheduled)
        return ScheduledBatch(tuple(scheduled), tuple(self._started))

    def _prefill_budget(self, head: Sequence | None) -> int:
        """Choose how many prompt tokens the step may compute in all.

        As many as the budget has, unless sequences are decoding that would feel the longer step:
        then what the forecast says to be short enough. The limit does not hold for a first prefill
        that could take the seats of all who decode; nor for a stream that another engine had begun,
        which is later than they are already; nor, else, for the first short prompts of a step: in
        pieces they would cost everybody more than they do at once. For a stream that was preempted
        it does: there are more of those who go on.
        """
        unlimited = self._config.max_num_batched_tokens
        if not (self._config.max_decode_slowdown and self._config.enable_chunked_prefill):
            return unlimited
        if head is None and not self._is_prefilling:
            return unlimited
        decoding: list[Sequence] = []
        prefilling = [] if head is None else [head]
        for sequence in self._running:
            is_decoding = sequence.num_tokens - sequence.num_computed_tokens == 1
            (decoding if is_decoding else prefilling).append(sequence)
        if not (decoding and prefilling):
            return unlimited
        first = min(prefilling, key=_rank_of)
        if all(self._policy.displaces(first, sequence) for sequence in decoding):
            self._unlimited = first
            self._short_prefill_left = 0
        limit = self._forecast.prefill_tokens(len(decoding), self._config.max_decode_slowdown)
        return unlimited if limit is None else min(unlimited, limit)

    def _prefill_limit(self, sequence: Sequence, num_cached_tokens: int) -> int:
        """How many tokens of its gap the sequence may close in this step, at most."""
        if sequence.num_preemptions:
            return self._prefill_left
        if sequence is self._unlimited or sequence.has_output:
            return self._config.max_num_batched_tokens
        if sequence.num_tokens - num_cached_tokens <= SHORT_PROMPT_TOKENS:
            return max(self._prefill_left, self._short_prefill_left)
        return self._prefill_left

    def _rerank_running(self, now: float) -> None:
        for sequence in self._running:
            sequence.rank = self._policy.rank(sequence, now, self._forecast)
        self._running.sort(key=_rank_of)

    def _displace(self, head: Sequence) -> None:
        """Make room for the head at the cost of less urgent running sequences, if it needs that
        and that is enough.
        """
        room = self._room()
        num_needed = -(-head.num_tokens // self._block_size)
        num_seats = self._max_seqs_now - len(self._running)
        if num_seats > 0 and num_needed <= room:
            return
        victims: list[Sequence] = []
        for sequence in reversed(self._running):
            if not self._goes_before(head, sequence):
                return
            victims.append(sequence)
            # Its blocks, the one it was to grow into, and what was promised to its prefill.
            room += max(len(sequence.block_ids), -(-sequence.num_tokens // self._block_size)) + 1
            if num_needed <= room:
                break
        else:
            return
        for victim in victims:
            self._running.remove(victim)
            self._preempt(victim)

    def _goes_before(self, head: Sequence, running: Sequence) -> bool:
        """May the head take what the running sequence has?"""
        return head.rank < running.rank and self._policy.displaces(head, running)

    def _leaves_its_share(self, running: Sequence, head: Sequence | None) -> bool:
        """Does a running prefill wait for the head to come first?"""
        if head is None or not self._config.enable_chunked_prefill:
            return False
        return self._goes_before(head, running)

    def _room(self) -> int:
        """Blocks that a new sequence may take now: see `_start_waiting`."""
        num_promised = sum(
            -(-sequence.num_tokens // self._block_size) - len(sequence.block_ids)
            for sequence in self._running
            if sequence.num_tokens - sequence.num_computed_tokens > 1
        )
        return self._pool.num_free - max(0, num_promised) - len(self._running)

    def _schedule_running(
        self, scheduled: list[ScheduledSequence], head: Sequence | None
    ) -> tuple[int, int]:
        """Give each running sequence its share; returns the rest of the budget, and the blocks
        that prefills will still need for tokens known today.

        A prefill less urgent than the waiting head leaves its share to that, but for a token.
        """
        running, block_size = self._running, self._block_size
        budget, num_promised = self._max_tokens_now, 0
        index = 0
        while index < len(running):  # preempting shortens it from the end
            sequence = running[index]
            index += 1
            start = sequence.num_computed_tokens
            num_tokens = gap = len(sequence.token_ids) - start
            if gap > 1:
                num_tokens = min(gap, self._max_chunk, budget - (len(running) - index))
                limit = self._prefill_limit(sequence, sequence.num_cached_tokens or 0)
                num_tokens = min(num_tokens, limit)
                if num_tokens < 1 or self._leaves_its_share(sequence, head):
                    num_tokens = 1
                self._prefill_left -= num_tokens
                self._short_prefill_left -= num_tokens
            end = start + num_tokens
            if end > len(sequence.block_ids) * block_size and not self._grow(sequence, end):
                break  # it was the last one, and has preempted itself
            if num_tokens < gap:
                num_promised += -(-(start + gap) // block_size) - len(sequence.block_ids)
            budget -= num_tokens
            scheduled.append(ScheduledSequence(sequence, start, num_tokens, num_tokens == gap))
        return budget, num_promised

    def _grow(self, sequence: Sequence, num_tokens: int) -> bool:
        """Make the sequence's blocks cover num_tokens, preempting from the largest rank down.

        False if that came to the sequence itself.
        """
        num_missing = -(-num_tokens // self._block_size) - len(sequence.block_ids)
        while self._pool.num_free < num_missing:
            victim = self._running.pop()
            self._preempt(victim)
            if victim is sequence:
                return False
        sequence.block_ids += self._pool.allocate(num_missing)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._pool.free(sequence.block_ids)
        sequence.block_ids = []
        sequence.num_computed_tokens = 0
        sequence.num_preemptions += 1
        sequence.status = SequenceStatus.WAITING
        self._tenants.on_preempt(sequence)
        self._waiting.push(sequence)
        self._num_preemptions += 1

    def _start_waiting(
        self, scheduled: list[ScheduledSequence], budget: int, num_promised: int, now: float
    ) -> None:
        """Start waiting sequences, in order, while there are seats, budget and blocks."""
        num_seats = self._max_seqs_now - len(self._running)
        while num_seats > 0 and budget > 0:
            sequence = self._waiting.head(now)
            if sequence is None:
                break
            cached = self._find_prefix(sequence)
            start = len(cached) * self._block_size
            limit = self._prefill_limit(sequence, start)
            if limit < 1:
                break
            gap = sequence.num_tokens - start
            num_tokens = min(gap, self._max_chunk, budget, limit)
            if num_tokens < gap and not self._config.enable_chunked_prefill:
                break
            num_new = -(-sequence.num_tokens // self._block_size) - len(cached)
            num_revived = sum(self._pool.num_users(block_id) == 0 for block_id in cached)
            if num_new + num_revived > self._pool.num_free - num_promised - len(self._running):
                break
            self._waiting.remove(sequence)
            self._start(sequence, cached, now)
            num_now = -(-(start + num_tokens) // self._block_size) - len(cached)
            sequence.block_ids += self._pool.allocate(num_now)
            num_promised += num_new - num_now
            num_seats -= 1
            budget -= num_tokens
            self._prefill_left -= num_tokens
            self._short_prefill_left -= num_tokens
            scheduled.append(ScheduledSequence(sequence, start, num_tokens, num_tokens == gap))

    def _find_prefix(self, sequence: Sequence) -> list[int]:
        """Return the cached blocks that the sequence may start with."""
        if self._prefix_cache is None or sequence.params.skip_reading_prefix_cache:
            return []
        # The last token is always computed: its logits choose the next one. Prompt positions
        # whose log-probabilities are still owed must be computed, too.
        max_tokens = sequence.num_tokens - 1
        if sequence.params.prompt_logprobs is not None and not sequence.has_output:
            max_tokens = min(max_tokens, len(sequence.prompt_logprobs))
        return self._prefix_cache.find_prefix(sequence, max_tokens)

    def _start(self, sequence: Sequence, cached: list[int], now: float) -> None:
        self._pool.touch(cached)
        sequence.block_ids = cached
        sequence.num_computed_tokens = len(cached) * self._block_size
        sequence.status = SequenceStatus.RUNNING
        self._tenants.on_start(sequence, self._forecast.output_tokens(sequence))
        insort(self._running, sequence, key=_rank_of)
        if sequence.first_scheduled_s is None:
            sequence.first_scheduled_s = now
            self._started.append(sequence)
            hits = min(sequence.num_computed_tokens, sequence.num_prompt_tokens)
            sequence.num_cached_tokens = hits
            if self._prefix_cache is not None and not sequence.params.skip_reading_prefix_cache:
                self._prefix_cache_queries += sequence.num_prompt_tokens
                self._prefix_cache_hits += hits

    def update(
        self, batch: ScheduledBatch, sampled: abc.Sequence[SampledToken], now: float
    ) -> list[SequenceOutput]:
        """Take in what a step has computed. sampled: one for each of the batch, in its order.

        Drops what it brought for sequences that have ended since it was scheduled.
        """
        outputs: list[SequenceOutput] = []
        if batch.sequences:
            self._grow_again()
            num_decodes = sum(item.num_tokens == 1 for item in batch.sequences)
            self._forecast.on_step(
                now - self._scheduled_s, num_decodes, batch.num_tokens - num_decodes
            )
        block_size, prefix_cache = self._block_size, self._prefix_cache
        for scheduled, token in zip(batch.sequences, sampled, strict=True):
            sequence = scheduled.sequence
            if sequence.status is not SequenceStatus.RUNNING:
                continue
            if token.error is not None:
                failed = self.fail(sequence, token.error)
                assert failed is not None
                outputs.append(failed)
                continue
            start, end = scheduled.start, scheduled.start + scheduled.num_tokens
            sequence.num_computed_tokens = end
            if prefix_cache is not None and end // block_size > start // block_size:
                prefix_cache.register(sequence, start // block_size, end // block_size)
            if token.prompt_logprobs and not sequence.has_output:
                _collect_prompt_logprobs(sequence, start, token)
            if scheduled.samples:
                outputs.append(self._append(sequence, token))
        return outputs

    def _append(self, sequence: Sequence, token: SampledToken) -> SequenceOutput:
        """Add the token to the sequence, and end that if it is the last one."""
        token_id = token.token_id
        assert token_id is not None, f"{sequence.request_id} was to be sampled"
        sequence.token_ids.append(token_id)
        stop = find_stop(sequence, self._max_num_tokens)
        finish_reason, stop_reason = stop if stop is not None else (None, None)
        is_first = not sequence.has_output
        prompt_logprobs = tuple(sequence.prompt_logprobs)
        if is_first:
            sequence.has_output = True
            sequence.prompt_logprobs.clear()
        if stop is not None:
            self._forecast.on_answer(sequence)
            self._remove(sequence)
        return SequenceOutput(
            sequence,
            (token_id,),
            finish_reason,
            stop_reason,
            token.logprobs,
            prompt_logprobs,
            is_first,
        )

    def _remove(self, sequence: Sequence) -> None:
        """End the sequence: take it out of its place and free its blocks."""
        del self._sequences[sequence.request_id]
        self._tenants.on_end(sequence)
        if sequence.status is SequenceStatus.RUNNING:
            self._running.remove(sequence)
            self._pool.free(sequence.block_ids)
            sequence.block_ids = []
        else:
            self._waiting.remove(sequence)
        sequence.status = SequenceStatus.FINISHED
        self._expiry.sweep(len(self._sequences))

    def _refuse_unservable(self, sequence: Sequence) -> None:
        request_id, num_tokens = sequence.request_id, sequence.num_tokens
        if request_id in self._sequences:
            raise ValidationError(
                f"request id {request_id!r} is in use: choose another one",
                parameter="request_id",
                value=request_id,
            )
        if num_tokens == 0:
            raise ValidationError("prompt is empty: it needs at least one token")
        for limit, way_out in (
            (self._max_model_len, "max_model_len: shorten it or raise --max-model-len"),
            (self._max_cache_tokens, "the KV cache: shorten it or raise --kv-cache-memory-bytes"),
        ):
            if num_tokens + 1 > limit:
                raise ValidationError(
                    f"prompt is {num_tokens} tokens (and needs room for one more), "
                    f"limit is {limit} by {way_out}",
                    parameter="prompt_token_ids",
                    value=num_tokens,
                )
        if sequence.num_output_tokens >= sequence.max_tokens:
            raise ValidationError(
                f"the sequence has {sequence.num_output_tokens} output tokens already, "
                f"limit is {sequence.max_tokens}: raise max_tokens",
                parameter="max_tokens",
                value=sequence.max_tokens,
            )

    def check(self) -> None:
        """Assert that the bookkeeping is consistent; slow, for tests."""
        invariants.check(
            self._sequences, self._waiting, self._running, self._pool, self._block_size
        )
        assert len(self._running) <= self._config.max_num_seqs, "more sequences run than seats"
        self._tenants.check(list(self._waiting), self._running)
        assert len(self._expiry) <= 6 * len(self._sequences) + 64, "deadlines pile up"


def _rank_of(sequence: Sequence) -> Rank:
    return sequence.rank


def _collect_prompt_logprobs(sequence: Sequence, start: int, token: SampledToken) -> None:
    """Keep those not kept yet: after a preemption the runner brings the first ones again."""
    num_known = len(sequence.prompt_logprobs)
    num_wanted = sequence.num_prompt_tokens - 1
    sequence.prompt_logprobs += token.prompt_logprobs[num_known - start : num_wanted - start]
