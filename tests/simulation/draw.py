"""Draw a plan from a seed: small workloads on small engines, with trouble at interesting places."""

from __future__ import annotations

from random import Random

from tests.simulation.plan import Fault, Order, Plan, Poison, RequestPlan
from wheelpit.config import CacheConfig, EngineConfig, ModelOptions, SchedulerConfig
from wheelpit.engine.limits import Limits, TenantLimits
from wheelpit.engine.restart_settings import RestartSettings
from wheelpit.request import RequestOutputKind

VOCAB_SIZE = 24
"""Token 0 is the model's EOS, 1 another that ends a sequence."""

TENANTS = ("", "a", "b")

STEP_FAULTS = (
    "crash_before_step",
    "crash_in_step",
    "crash_after_step",
    "crash_after_sending",
    "hang_silently",
    "hang_in_step",
    "slow_step",
    "out_of_memory",
    "step_raises",
)
MESSAGE_FAULTS = ("crash_before_message", "crash_after_message")
LOAD_FAULTS = ("crash_loading", "start_failed", "no_process", "hang_loading")


def draw_plan(seed: int) -> Plan:
    """Everything that is to happen under this seed."""
    random = Random(seed)
    config = _draw_config(random)
    num_blocks = random.randint(4, 30)
    restarts = RestartSettings(
        stall_timeout_s=random.choice([0.6, 1.0, 2.0, 5.0]),
        max_restarts=random.choice([0, 1, 2, 3, 5, 5, 8, 20]),
        window_s=random.choice([5.0, 60.0, 300.0]),
    )
    block_size = config.cache.block_size
    room = min(config.model.max_model_len, num_blocks * block_size)
    span_s = random.choice([0.0, 0.3, 1.0, 3.0])
    return Plan(
        seed=seed,
        config=config,
        num_blocks=num_blocks,
        limits=draw_limits(random),
        restarts=restarts,
        latency_s=random.choice([0.0, 0.001, 0.02]),
        step_s=random.choice([0.005, 0.02, 0.05, 0.125]),
        token_s=random.choice([0.0, 0.001, 0.01]),
        load_s=random.choice([0.2, 1.0, 4.0]),
        requests=_draw_requests(random, span_s, room),
        faults=_draw_faults(random, restarts.stall_timeout_s),
        orders=_draw_orders(random, span_s),
    )


def _draw_config(random: Random) -> EngineConfig:
    max_model_len = random.choice([16, 32, 48])
    is_chunked = random.random() < 0.8
    seats = random.randint(1, 5)
    lowest = seats if is_chunked else max(seats, max_model_len)
    return EngineConfig(
        model=ModelOptions(folder="", max_model_len=max_model_len),
        cache=CacheConfig(
            block_size=random.choice([1, 2, 4]),
            enable_prefix_caching=random.random() < 0.8,
        ),
        scheduler=SchedulerConfig(
            max_num_seqs=seats,
            max_num_batched_tokens=lowest + random.choice([0, 3, 12, 300]),
            enable_chunked_prefill=is_chunked,
            long_prefill_token_threshold=random.choice([0, 0, 0, 3]),
            max_decode_slowdown=random.choice([0.0, 1.75]),
            policy=random.choice(["fcfs", "priority", "deadline", "fair"]),
            priority_ageing_s=random.choice([0.0, 0.2, 30.0]),
        ),
    )


def draw_limits(random: Random) -> Limits:
    """Bounds and tenants, often none."""
    if random.random() < 0.4:
        return Limits()

    def tenant() -> TenantLimits:
        return TenantLimits(
            weight=random.choice([0.5, 1.0, 3.0]),
            max_running=random.choice([None, None, 1, 2]),
            max_queued=random.choice([None, None, 0, 2]),
            tokens_per_minute=random.choice([None, None, None, 40, 600]),
        )

    return Limits(
        max_num_queued_reqs=random.choice([None, None, 0, 2, 5]),
        max_num_queued_tokens=random.choice([None, None, 30, 80]),
        default_timeout_s=random.choice([None, None, 2.0]),
        default_queue_timeout_s=random.choice([None, None, 1.0]),
        default_ttft_timeout_s=random.choice([None, None, 1.5]),
        refuse_late=random.random() < 0.2,
        tenants={name: tenant() for name in TENANTS if random.random() < 0.5},
        default_tenant=tenant() if random.random() < 0.3 else TenantLimits(),
    )


def _draw_requests(random: Random, span_s: float, room: int) -> tuple[RequestPlan, ...]:
    prefixes = [
        tuple(random.randrange(2, VOCAB_SIZE) for _ in range(random.randint(1, max(1, room // 2))))
        for _ in range(2)
    ]
    has_poison = random.random() < 0.35
    has_timeouts = random.random() < 0.5
    requests = []
    for number in range(random.choice([1, 2, 3, 4, 5, 6, 8, 12])):
        prompt = random.choice([(), *prefixes])
        prompt += tuple(random.randrange(2, VOCAB_SIZE) for _ in range(random.randint(1, 8)))
        requests.append(
            _draw_request(random, number, span_s, prompt[: room + 1], has_poison, has_timeouts)
        )
    return tuple(requests)


def _draw_request(
    random: Random,
    number: int,
    span_s: float,
    prompt: tuple[int, ...],
    has_poison: bool,
    has_timeouts: bool,
) -> RequestPlan:
    def maybe(chance: float, choices: list[float]) -> float | None:
        return random.choice(choices) if random.random() < chance else None

    max_tokens = random.choice([1, 2, 4, 8, 16, 30])
    n = random.choice([1, 1, 1, 1, 2, 3])
    has_stop = random.random() < 0.15
    poison = None
    if has_poison and random.random() < 0.35:
        kind = random.choice(["crash", "crash", "hang", "raise", "nan"])
        at = random.choice([0, 0, 1, max_tokens // 2])
        poison = Poison(kind=kind, index=random.randrange(n), num_tokens=at)
    timeouts = [0.004, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0]
    chance = 0.3 if has_timeouts else 0.0
    is_text = random.random() < 0.3
    return RequestPlan(
        number=number,
        request_id=f"r{number}" if random.random() < 0.85 else "twin",
        at_s=random.choice([0.0, random.uniform(0.0, span_s), span_s]),
        prompt=prompt,
        seed=random.randrange(1000),
        max_tokens=max_tokens,
        min_tokens=0 if has_stop else random.choice([0, 0, 0, max_tokens // 2]),
        n=n,
        stop_token_ids=tuple(random.sample(range(VOCAB_SIZE), random.choice([0, 0, 1, 3]))),
        stop=tuple("".join(random.choices("cdefgh", k=random.randint(1, 2))) for _ in range(2))
        if has_stop
        else (),
        ignore_eos=random.random() < 0.6,
        output_kind=random.choice(list(RequestOutputKind)),
        wants_logprobs=random.random() < 0.1,
        wants_prompt_logprobs=random.random() < 0.1,
        cache_salt=random.choice([None, None, None, "salt"]),
        priority=random.choice([0, 0, 0, -1, 1]),
        tenant=random.choice(TENANTS),
        timeout=maybe(chance, timeouts),
        queue_timeout=maybe(chance, timeouts),
        ttft_timeout=maybe(chance, timeouts),
        style=random.choice(["generate", "generate", "generate", "collector", "reserved"]),
        is_text=is_text,
        tokenize_s=random.choice([0.0, 0.001, 0.05, 0.4]) if is_text else 0.0,
        pause_s=random.choice([0.0, 0.0, 0.0, 0.03, 0.5]),
        leaves_s=maybe(0.12, [0.0, 0.02, 0.1, 0.5, 1.5, 3.0]),
        leaves_after=random.choice([1, 2]) if random.random() < 0.05 else None,
        aborted_s=maybe(0.08, [0.0, 0.02, 0.1, 0.5, 1.5, 3.0]),
        is_unencodable=random.random() < 0.02,
        poison=poison,
    )


def _draw_faults(random: Random, stall_timeout_s: float) -> tuple[Fault, ...]:
    if random.random() < 0.4:
        return ()
    faults = []
    for _ in range(random.choice([1, 1, 2, 3, 6])):
        engine = random.choice([0, 0, 1, 1, 2, 3])
        family = random.random()
        if family < 0.7:
            seconds = random.choice([0.1, 0.5, 0.8]) * stall_timeout_s
            index = random.choice([0, 0, 1, 2, 3, 5, 8, 13, 30])
            kind = random.choice(STEP_FAULTS)
            faults.append(Fault(kind=kind, engine=engine, index=index, seconds=seconds))
        elif family < 0.85:
            kind, index = random.choice(MESSAGE_FAULTS), random.choice([0, 1, 2, 3, 6])
            faults.append(Fault(kind=kind, engine=engine, index=index))
        else:
            faults.append(Fault(kind=random.choice(LOAD_FAULTS), engine=max(1, engine)))
    return tuple(faults)


def _draw_orders(random: Random, span_s: float) -> tuple[Order, ...]:
    if random.random() < 0.5:
        return ()
    orders = []
    kinds = ["kill", "restart", "stand_still", "pause", "limits", "reset_cache"]
    for _ in range(random.choice([1, 1, 2, 3, 5])):
        kind = random.choice(kinds) if random.random() < 0.95 else "close"
        orders.append(
            Order(
                kind=kind,
                at_s=random.choice([0.0, random.uniform(0.0, span_s + 1.0), span_s]),
                seconds=random.choice([0.05, 0.3, 1.0, 4.0])
                if kind in ("stand_still", "pause")
                else 0.0,
                mode=random.choice(["abort", "wait"]) if kind == "pause" else "",
                limits=draw_limits(random) if kind == "limits" else None,
            )
        )
    return tuple(orders)
