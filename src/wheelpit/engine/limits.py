"""What the engine takes on: frozen, checked when built, replaced as a whole at run time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from wheelpit.config import require
from wheelpit.scheduling.tenants import TenantShare


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLimits:
    """What one tenant may have of the engine; None is no limit.

    weight: its share under the fair policy, relative to others'. max_running: sequences that run at
    a time. max_queued: sequences that wait beyond the seats free for it. tokens_per_minute: prompt
    and output tokens, on average; a minute's worth may come at once.
    """

    weight: float = 1.0
    max_running: int | None = None
    max_queued: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        TenantShare(self.weight, self.max_running)  # checks both
        queued, rate = self.max_queued, self.tokens_per_minute
        require(queued is None or queued >= 0, "max_queued", queued, "at least 0, or None")
        require(rate is None or rate >= 1, "tokens_per_minute", rate, "at least 1, or None")

    @property
    def share(self) -> TenantShare:
        """The part of them that the engine process sees to."""
        return TenantShare(self.weight, self.max_running)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the engine takes on; None is no limit. Change one with `dataclasses.replace`.

    max_num_queued_reqs: sequences that wait beyond the free seats (a request with n > 1 has n).
    max_num_queued_tokens: prompt tokens of all that have not started. Either bound may be passed by
    a single request that is larger than it, if nobody waits.
    default_*_s: the timeouts of requests that have none of their own.
    refuse_late: refuse a request that would, as things stand, start after one of its deadlines.
    default_tenant: the limits of every tenant that `tenants` does not name, of each its own.
    """

    max_num_queued_reqs: int | None = None
    max_num_queued_tokens: int | None = None
    default_timeout_s: float | None = None
    default_queue_timeout_s: float | None = None
    default_ttft_timeout_s: float | None = None
    refuse_late: bool = False
    tenants: Mapping[str, TenantLimits] = field(default_factory=lambda: MappingProxyType({}))
    default_tenant: TenantLimits = field(default_factory=TenantLimits)

    def __post_init__(self) -> None:
        bound, tokens = self.max_num_queued_reqs, self.max_num_queued_tokens
        require(bound is None or bound >= 0, "max_num_queued_reqs", bound, "at least 0, or None")
        require(
            tokens is None or tokens >= 1, "max_num_queued_tokens", tokens, "at least 1, or None"
        )
        for name in ("default_timeout_s", "default_queue_timeout_s", "default_ttft_timeout_s"):
            seconds = getattr(self, name)
            is_valid = seconds is None or 0.0 < seconds < float("inf")
            require(is_valid, name, seconds, "positive and finite, or None")

    def of(self, tenant: str) -> TenantLimits:
        """The limits of one tenant."""
        return self.tenants.get(tenant, self.default_tenant)

    def changes_to(self, other: Limits) -> list[tuple[str, object, object]]:
        """(name, old, new) of everything in which the other differs, tenants one by one."""
        found: list[tuple[str, object, object]] = [
            (described.name, old, new)
            for described in fields(self)
            if described.name != "tenants"
            and (old := getattr(self, described.name)) != (new := getattr(other, described.name))
        ]
        for name in sorted(self.tenants.keys() | other.tenants.keys()):
            old_tenant, new_tenant = self.tenants.get(name), other.tenants.get(name)
            if old_tenant != new_tenant:
                found.append((f"tenants.{name}", old_tenant, new_tenant))
        return found
