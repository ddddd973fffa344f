"""What a caller says of a request, checked no further than its types allow."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wheelpit.config import SchedulingPolicy
from wheelpit.engine.limits import Limits
from wheelpit.errors import ValidationError
from wheelpit.request import PromptType, SamplingParams
from wheelpit.scheduling.deadlines import Deadlines

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds from arrival to the end, to the start, to the first token; None is the default."""

    timeout: float | None = None
    queue_timeout: float | None = None
    ttft_timeout: float | None = None

    def check(self) -> None:
        """Raise ValidationError, naming the field, for what is not positive and finite."""
        for name in ("timeout", "queue_timeout", "ttft_timeout"):
            value = getattr(self, name)
            if value is None:
                continue
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (is_number and math.isfinite(value) and value > 0.0):
                raise ValidationError(
                    f"{name} must be a positive, finite number of seconds",
                    parameter=name,
                    value=value,
                )

    def deadlines(self, arrival_s: float, limits: Limits) -> Deadlines:
        """The moments until which a request has time, by its own timeouts or the engine's."""

        def moment(own_s: float | None, default_s: float | None) -> float | None:
            seconds = default_s if own_s is None else own_s
            return None if seconds is None else arrival_s + seconds

        return Deadlines(
            moment(self.timeout, limits.default_timeout_s),
            moment(self.queue_timeout, limits.default_queue_timeout_s),
            moment(self.ttft_timeout, limits.default_ttft_timeout_s),
        )


@dataclass(frozen=True, slots=True)
class Arrival:
    """Who asks, when, and how urgently: what admission wants to know of a request but its size.

    arrival_time: seconds since the epoch; None is now.
    """

    request_id: str
    tenant: str = ""
    priority: int = 0
    arrival_time: float | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)

    def check(self) -> None:
        """Raise ValidationError, naming the field, for what admission cannot work with."""
        if not isinstance(self.tenant, str):
            raise ValidationError("tenant must be a string", parameter="tenant", value=self.tenant)
        self.timeouts.check()


@dataclass(frozen=True, slots=True)
class Submission:
    """Everything a caller says of one request."""

    arrival: Arrival
    prompt: PromptType
    params: SamplingParams
    prompt_text: str | None = None
    tokenization_kwargs: Mapping[str, Any] = field(default_factory=dict)
    lora_request: object = None

    def check(self) -> None:
        """Raise ValueError for what is not supported."""
        if self.lora_request is not None:
            raise ValueError("lora_request is not supported")
        unknown = set(self.tokenization_kwargs) - {"add_special_tokens"}
        if unknown:
            raise ValueError(f"tokenization_kwargs {sorted(unknown)} are not supported")


class PriorityWarning:
    """Say once that a priority does nothing, under a policy that does not look at it."""

    def __init__(self, policy: SchedulingPolicy) -> None:
        self._policy = policy
        self._is_due = policy != "priority"

    def __call__(self, priority: int) -> None:
        if priority and self._is_due:
            self._is_due = False
            log.warning(
                "priority=%d has no effect under the %s policy: use scheduling_policy=priority",
                priority,
                self._policy,
            )
