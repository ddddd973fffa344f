"""What happens in one simulation, drawn from its seed before it begins: nouns without behaviour.

A plan is a value: the shrinker takes things out of it, and what is left still means the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from wheelpit.config import EngineConfig
from wheelpit.engine.limits import Limits
from wheelpit.engine.restart_settings import RestartSettings
from wheelpit.request import RequestOutputKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """What one sequence of a request does to the step that computes it.

    kind: "crash" and "hang" end the engine, "raise" fails the step, "nan" is an error of this
    sequence alone. Each time, not once: as soon as it has num_tokens of output.
    """

    kind: str
    index: int
    num_tokens: int

    @property
    def is_deadly(self) -> bool:
        return self.kind in ("crash", "hang")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPlan:
    """One request and its consumer.

    style: "generate", "collector" (add_request), "reserved" (a place first, as servers do).
    is_text: the prompt is text, and tokenizing it takes tokenize_s. pause_s: between two reads.
    leaves_s: when its task is cancelled; aborted_s: when somebody aborts its id; both after its
    arrival. leaves_after: outputs after which it breaks out of its loop.
    is_unencodable: no message can carry its parameters.
    """

    number: int
    request_id: str
    at_s: float
    prompt: tuple[int, ...]
    seed: int
    max_tokens: int
    min_tokens: int = 0
    n: int = 1
    stop_token_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    wants_logprobs: bool = False
    wants_prompt_logprobs: bool = False
    cache_salt: str | None = None
    priority: int = 0
    tenant: str = ""
    timeout: float | None = None
    queue_timeout: float | None = None
    ttft_timeout: float | None = None
    style: str = "generate"
    is_text: bool = False
    tokenize_s: float = 0.0
    pause_s: float = 0.0
    leaves_s: float | None = None
    leaves_after: int | None = None
    aborted_s: float | None = None
    is_unencodable: bool = False
    poison: Poison | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong in one engine, once.

    engine: the first is 0. index: of the step or the message. seconds: of a slow step. For the
    kinds see simulated_engine.py.
    """

    kind: str
    engine: int
    index: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Something that somebody does to the engine, or to this process, at a moment.

    kind: "kill", "restart", "stand_still" (for `seconds`), "pause" (until `seconds` later; `mode`),
    "limits" (these `limits` from now on), "reset_cache", "close".
    """

    kind: str
    at_s: float
    seconds: float = 0.0
    mode: str = ""
    limits: Limits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything but the delays, which are drawn as it runs.

    latency_s: the longest delay of a message. step_s, token_s, load_s: what a step, each of its
    tokens, and loading take.
    """

    seed: int
    config: EngineConfig
    num_blocks: int
    limits: Limits
    restarts: RestartSettings
    latency_s: float
    step_s: float
    token_s: float
    load_s: float
    requests: tuple[RequestPlan, ...]
    faults: tuple[Fault, ...] = ()
    orders: tuple[Order, ...] = field(default=())

    def request(self, number: int) -> RequestPlan:
        """The request of this number: the shrinker leaves gaps."""
        return next(request for request in self.requests if request.number == number)

    @property
    def has_poison(self) -> bool:
        return any(request.poison is not None for request in self.requests)

    @property
    def max_num_tokens(self) -> int:
        """No sequence grows beyond this."""
        return min(self.config.model.max_model_len, self.num_blocks * self.config.cache.block_size)

    @property
    def has_only_poison(self) -> bool:
        """Does nothing go wrong but what requests bring with them?"""
        return not self.faults and all(
            order.kind in ("pause", "limits", "reset_cache") for order in self.orders
        )

    @property
    def end_s(self) -> float:
        """When the last thing of the plan happens."""
        moments = [request.at_s for request in self.requests]
        moments += [order.at_s + order.seconds for order in self.orders]
        return max(moments, default=0.0)
