"""The scheduler under random requests, aborts, errors, deadlines and tiny caches, by every policy.

Every step is computed by CheckedModel, which demands that each token's whole context is in its
sequence's blocks. Further oracles: each request ends exactly once; its tokens, finish and stop
reasons are those it would have had alone; prompt log-probabilities come complete and once; each
step does something, keeps its limits, and leaves no running sequence out that was not preempted;
nobody starts before one that the policy puts first, and only the urgent take others' seats; no
step works on what has missed a deadline, and nothing else ends as if it had.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.scheduling.checked_model import (
    VOCAB_SIZE,
    CheckedModel,
    Launched,
    generate,
    make_sequence,
    score,
)
from wheelpit.config import CacheConfig, SchedulerConfig
from wheelpit.errors import ValidationError
from wheelpit.request import SamplingParams
from wheelpit.scheduling.batch import SampledToken, ScheduledBatch
from wheelpit.scheduling.deadlines import Deadlines
from wheelpit.scheduling.outputs import SequenceOutput
from wheelpit.scheduling.scheduler import Scheduler
from wheelpit.scheduling.sequence import Sequence, SequenceStatus
from wheelpit.scheduling.tenants import TenantShare

MAX_MODEL_LEN = 40

prompts = st.builds(
    # Few different beginnings, so that prefixes, and whole prompts, are shared; any ending.
    lambda stem, length, rest: [(stem * 5 + i) % VOCAB_SIZE for i in range(length)] + rest,
    st.integers(0, 1),
    st.one_of(st.sampled_from([8, 16]), st.integers(1, 12), st.integers(1, 24)),
    st.one_of(st.just([]), st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=8)),
)


@st.composite
def configs(draw: st.DrawFn) -> tuple[SchedulerConfig, CacheConfig, int]:
    is_chunked = draw(st.booleans())
    seats = draw(st.integers(1, 6))
    scheduler = SchedulerConfig(
        max_num_seqs=seats,
        max_num_batched_tokens=draw(
            st.integers(seats, 16) if is_chunked else st.integers(MAX_MODEL_LEN, 64)
        ),
        enable_chunked_prefill=is_chunked,
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 1, 3, 7])),
        max_decode_slowdown=draw(st.sampled_from([0.0, 1.5])),
        policy=draw(st.sampled_from(["fcfs", "priority", "deadline", "fair"])),
        priority_ageing_s=draw(st.sampled_from([0.0, 1.0, 30.0])),
    )
    block_size = draw(st.sampled_from([1, 2, 4, 8]))
    num_tokens = draw(st.sampled_from([16, 32, 40, 48, 64]))
    cache = CacheConfig(block_size=block_size, enable_prefix_caching=draw(st.integers(0, 3)) > 0)
    return scheduler, cache, num_tokens // block_size


moments = st.one_of(st.none(), st.none(), st.floats(1.0, 60.0))
shares = st.builds(
    TenantShare,
    weight=st.sampled_from([0.5, 1.0, 3.0]),
    max_running=st.sampled_from([None, None, 1, 2]),
)


@st.composite
def sequences(draw: st.DrawFn) -> Sequence:
    """Draw a request; its id is given when it is added."""
    max_tokens = draw(st.integers(1, 24))
    wants_prompt_logprobs = draw(st.integers(0, 3)) == 0
    token_ids = st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=2)
    stops: st.SearchStrategy[list[int]] = st.one_of(st.just([]), st.just([]), token_ids)
    eos = draw(stops)
    params = SamplingParams(
        max_tokens=max_tokens,
        min_tokens=draw(st.integers(0, max_tokens)),
        stop_token_ids=draw(stops),
        prompt_logprobs=0 if wants_prompt_logprobs else None,
        skip_reading_prefix_cache=draw(st.sampled_from([None, False, True])),
    )
    return make_sequence(
        "",
        draw(prompts),
        params,
        max_tokens=max_tokens,
        eos_token_ids=frozenset(eos),
        primary_eos_token_id=eos[0] if eos else None,
        priority=draw(st.integers(-1, 1)),
        arrival_s=float(draw(st.integers(0, 3))),
        cache_salt=draw(st.sampled_from([None, None, None, "tenant"])),
        tenant=draw(st.sampled_from(["", "", "a", "b"])),
        deadlines=draw(st.builds(Deadlines, moments, moments, moments)),
    )


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(config=configs())
    def build(self, config: tuple[SchedulerConfig, CacheConfig, int]) -> None:
        self.config, cache, num_blocks = config
        self.scheduler = Scheduler(self.config, cache, num_blocks, MAX_MODEL_LEN)
        self.model = CheckedModel(num_blocks, cache.block_size)
        self.max_num_tokens = min(MAX_MODEL_LEN, num_blocks * cache.block_size)
        self.num_blocks, self.block_size = num_blocks, cache.block_size
        self.has_prefix_cache = cache.enable_prefix_caching
        self.live: dict[str, Sequence] = {}
        self.streams: dict[str, list[int]] = {}
        self.num_added = 0
        self.now = 0.0
        self.shares: dict[str, TenantShare] = {}

    @rule(seconds=st.floats(0.0, 5.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(chosen=st.dictionaries(st.sampled_from(["a", "b"]), shares))
    def set_tenants(self, chosen: dict[str, TenantShare]) -> None:
        self.shares = chosen
        self.scheduler.set_tenants(chosen, TenantShare())

    @rule(newcomers=st.lists(sequences(), min_size=1, max_size=5))
    def add(self, newcomers: list[Sequence]) -> None:
        for sequence in newcomers:
            self.add_one(sequence)

    def add_one(self, sequence: Sequence) -> None:
        sequence.request_id = f"r{self.num_added}"
        self.num_added += 1
        if sequence.deadlines.moments:
            sequence.deadlines = Deadlines(
                *(
                    None if moment is None else self.now + moment
                    for moment in (
                        sequence.deadlines.total_s,
                        sequence.deadlines.queue_s,
                        sequence.deadlines.ttft_s,
                    )
                )
            )
        fits = sequence.num_tokens + 1 <= self.max_num_tokens
        try:
            self.scheduler.add(sequence, self.now)
        except ValidationError:
            assert not fits
        else:
            assert fits
            self.live[sequence.request_id] = sequence
            self.streams[sequence.request_id] = []

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.abort_one(data.draw(st.sampled_from(list(self.live))))

    def abort_one(self, request_id: str) -> None:
        assert self.scheduler.abort(request_id) is self.live.pop(request_id)
        assert self.scheduler.abort(request_id) is None

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        sequence = self.live[data.draw(st.sampled_from(list(self.live)))]
        output = self.scheduler.fail(sequence, "told to")
        assert output is not None
        self.take(output)

    @precondition(lambda self: self.live)
    @rule(num_steps=st.integers(1, 8))
    def steps(self, num_steps: int) -> None:
        for _ in range(num_steps):
            launched = self.schedule()
            self.update(launched.batch, self.model.run(launched))
            self.scheduler.check()

    @precondition(lambda self: self.live)
    @rule(num_steps=st.integers(1, 2))
    def schedule_and_drop(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.schedule()

    @precondition(lambda self: self.live)
    @rule()
    def run_out_of_memory(self) -> None:
        batch = self.schedule().batch
        was_possible = self.scheduler.shrink(batch)
        assert was_possible or batch.num_tokens == 1 or len(batch.sequences) <= 1
        self.scheduler.check()
        if was_possible and self.live:
            smaller = self.schedule().batch
            assert len(smaller.sequences) <= max(1, len(batch.sequences) // 2)
            if self.config.enable_chunked_prefill:
                assert smaller.num_tokens <= batch.num_tokens // 2

    @precondition(lambda self: self.live)
    @rule(data=st.data(), newcomer=sequences())
    def step_with_trouble(self, data: st.DataObject, newcomer: Sequence) -> None:
        """Do one step with aborts while it is in flight, an arrival, and an error."""
        launched = self.schedule()
        in_flight = [item.sequence.request_id for item in launched.batch.sequences]
        if not in_flight:
            return
        if data.draw(st.booleans()):
            self.abort_one(data.draw(st.sampled_from(in_flight)))
        if data.draw(st.booleans()):
            self.add_one(newcomer)
        sampled = self.model.run(launched)
        if data.draw(st.booleans()) and self.live:
            self.abort_one(data.draw(st.sampled_from(list(self.live))))
        if data.draw(st.booleans()):
            failing = data.draw(st.integers(0, len(sampled) - 1))
            sampled[failing] = SampledToken(error="logits are not finite")
        self.update(launched.batch, sampled)

    @rule()
    def reset_prefix_cache(self) -> None:
        is_idle = self.scheduler.num_running == 0
        assert self.scheduler.reset_prefix_cache() == (is_idle or not self.has_prefix_cache)

    def schedule(self) -> Launched:
        self.expire()
        was_running = {
            sequence for sequence in self.live.values() if sequence.status is SequenceStatus.RUNNING
        }
        num_preemptions = {s: s.num_preemptions for s in self.live.values()}
        num_computed = {s: s.num_computed_tokens for s in was_running}
        was_scheduled = {s for s in self.live.values() if s.first_scheduled_s is not None}
        batch = self.scheduler.schedule(self.now)
        self.scheduler.check()
        scheduled = [item.sequence for item in batch.sequences]
        preempted = {s for s, count in num_preemptions.items() if s.num_preemptions > count}
        started = set(scheduled) - was_running
        assert bool(scheduled) == bool(self.live), "a step did nothing though there is work"
        assert len(set(scheduled)) == len(scheduled) <= self.config.max_num_seqs
        assert batch.num_tokens <= self.config.max_num_batched_tokens
        assert set(batch.started) == set(scheduled) - was_scheduled
        assert preempted <= was_running
        assert preempted.isdisjoint(scheduled), "a preempted sequence is in the batch"
        assert was_running - preempted <= set(scheduled), "a running sequence was left out"
        if preempted and started:
            assert self.config.policy in ("priority", "deadline"), "a step preempted and started"
            assert max(s.rank for s in started) < min(s.rank for s in preempted)
        elif preempted:
            assert max(s.rank for s in scheduled) < min(s.rank for s in preempted)
        elif started:
            missing = sum(-(-s.num_tokens // self.block_size) - len(s.block_ids) for s in scheduled)
            room = self.scheduler.stats().num_free_blocks - (len(scheduled) - 1)
            assert missing <= room, "started more than fits"
        self.check_order(started)
        for item in batch.sequences:
            self.check_item(item, num_computed)
        return self.model.launch(batch)

    def expire(self) -> None:
        for output in self.scheduler.expire(self.now):
            sequence, missed = output.sequence, output.stop_reason
            assert output.finish_reason == "abort"
            assert sequence.request_id in self.live, "a request has ended twice"
            assert missed in self.missed_deadlines(sequence)
            assert output.is_first == (not self.streams[sequence.request_id])
            del self.live[sequence.request_id]
        for sequence in self.live.values():
            assert not self.missed_deadlines(sequence), "a request outlives its deadline"

    def missed_deadlines(self, sequence: Sequence) -> set[str]:
        deadlines = sequence.deadlines
        stream = self.streams[sequence.request_id]
        was_scheduled = sequence.first_scheduled_s is not None
        return {
            name
            for name, moment, is_void in (
                ("timeout", deadlines.total_s, False),
                ("queue_timeout", deadlines.queue_s, was_scheduled),
                ("ttft_timeout", deadlines.ttft_s, bool(stream)),
            )
            if moment is not None and moment <= self.now and not is_void
        }

    def check_order(self, started: set[Sequence]) -> None:
        """Nobody who waits had a better claim than one who started; seats per tenant are kept."""
        running = [s for s in self.live.values() if s.status is SequenceStatus.RUNNING]
        for name, share in self.shares.items():
            if any(s.tenant == name for s in started) and share.max_running is not None:
                assert sum(s.tenant == name for s in running) <= share.max_running
        for waiting in self.live.values():
            if waiting.status is not SequenceStatus.WAITING:
                continue
            limit = self.shares.get(waiting.tenant, TenantShare()).max_running
            num_running = sum(s.tenant == waiting.tenant for s in running)
            if limit is not None and num_running >= limit:
                continue
            for sequence in started:
                assert self.claim(sequence, waiting) < self.claim(waiting, sequence), (
                    f"{sequence.request_id} started before {waiting.request_id}"
                )

    def claim(self, sequence: Sequence, other: Sequence) -> tuple[float, ...]:
        """What the policy compares, restated."""
        number = int(sequence.request_id[1:])
        ageing_s = self.config.priority_ageing_s
        match self.config.policy:
            case "priority" if ageing_s:
                age = sequence.arrival_s + ageing_s * sequence.priority
                return (age, sequence.priority, number)
            case "priority":
                return (sequence.priority, sequence.arrival_s, number)
            case "deadline":
                # Who is late is the forecast's to say: compare within the same class.
                if sequence.rank[0] != other.rank[0]:
                    return (sequence.rank[0],)
                return (sequence.rank[1], number)
            case "fair" if sequence.tenant != other.tenant:
                return (0 if sequence.status is SequenceStatus.RUNNING else 1,)
        return (number,)

    def check_item(self, item, num_computed) -> None:
        sequence, end = item.sequence, item.start + item.num_tokens
        assert item.num_tokens >= 1
        assert item.start == num_computed.get(sequence, sequence.num_computed_tokens)
        assert item.samples == (end == sequence.num_tokens)
        if not self.config.enable_chunked_prefill:
            assert item.samples
        elif self.config.long_prefill_token_threshold:
            assert item.num_tokens <= self.config.long_prefill_token_threshold

    def update(self, batch: ScheduledBatch, sampled: list[SampledToken]) -> None:
        self.now += 0.1 + 0.02 * batch.num_tokens
        outputs = self.scheduler.update(batch, sampled, self.now)
        assert len({output.sequence for output in outputs}) == len(outputs)
        for output in outputs:
            self.take(output)

    def take(self, output: SequenceOutput) -> None:
        """Note an output; compare a finished request with the same one generated alone."""
        sequence = output.sequence
        request_id = sequence.request_id
        assert request_id in self.live, "an output for a request that has ended"
        stream = self.streams[request_id]
        assert output.is_first == (not stream)
        prompt = sequence.token_ids[: sequence.num_prompt_tokens]
        if stream or output.error is not None or sequence.params.prompt_logprobs is None:
            assert output.prompt_logprobs == ()
        else:
            expected = tuple(score(prompt, position) for position in range(1, len(prompt)))
            assert output.prompt_logprobs == expected
        stream += output.token_ids
        tokens, finish_reason, stop_reason = generate(sequence, self.max_num_tokens)
        if output.finish_reason in (None, "error"):
            assert stream == tokens[: len(stream)]
        else:
            assert stream == tokens
            assert (output.finish_reason, output.stop_reason) == (finish_reason, stop_reason)
        if output.finish_reason is None:
            assert len(stream) < len(tokens)
        else:
            assert sequence.is_finished
            del self.live[request_id]

    @invariant()
    def is_consistent(self) -> None:
        if hasattr(self, "scheduler"):
            self.scheduler.check()
            stats = self.scheduler.stats()
            assert stats.num_running + stats.num_waiting == len(self.live)
            assert 0 <= stats.prefix_cache_hits <= stats.prefix_cache_queries

    def teardown(self) -> None:
        """Let everything come to its end: in a bounded number of steps, with nothing left over."""
        if not hasattr(self, "scheduler"):
            return
        # Whoever has the smallest rank closes its gap by a token a step and is never set back.
        # Under `fair` that one changes when an older one of another tenant starts.
        bound = sum(s.num_prompt_tokens + s.max_tokens for s in self.live.values()) + 1
        for _ in range(bound * (len(self.live) + 2)):
            if not self.scheduler.has_work:
                break
            launched = self.schedule()
            self.update(launched.batch, self.model.run(launched))
        self.scheduler.check()
        assert not self.live, "a request has not ended"
        assert not self.scheduler.has_work
        assert self.scheduler.stats().num_free_blocks == self.num_blocks
        assert self.scheduler.reset_prefix_cache()


SchedulerMachine.TestCase.settings = settings(
    max_examples=300, stateful_step_count=30, deadline=None, derandomize=True
)
TestSchedulerMachine = SchedulerMachine.TestCase
