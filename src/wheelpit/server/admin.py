"""GET and PATCH /admin/limits: what the engine takes on, shown and changed while it runs.

Only there with an admin key, and only for who has it (`auth.py`). A change is all or nothing: every
field is checked before the first one takes effect.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from wheelpit.engine.limits import Limits, TenantLimits
from wheelpit.errors import ConfigError, ValidationError
from wheelpit.server.body import read_json
from wheelpit.server.responses import json_response
from wheelpit.server.service import Service

log = logging.getLogger(__name__)

PACKAGE_LOGGER = "wheelpit"

Count = int | None | UnsetType
Seconds = float | None | UnsetType
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

ENGINE_NAMES = {
    "default_timeout": "default_timeout_s",
    "default_queue_timeout": "default_queue_timeout_s",
    "default_ttft_timeout": "default_ttft_timeout_s",
}
"""Fields that are called like the flags here, and otherwise in `Limits`."""


class TenantPatch(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What changes for a tenant; what is left out stays."""

    weight: float | UnsetType = UNSET
    max_running: Count = UNSET
    max_queued: Count = UNSET
    tokens_per_minute: Count = UNSET


class LimitsPatch(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The body of PATCH /admin/limits: what is left out stays, null is no limit."""

    max_num_queued_reqs: Count = UNSET
    max_num_queued_tokens: Count = UNSET
    default_timeout: Seconds = UNSET
    default_queue_timeout: Seconds = UNSET
    default_ttft_timeout: Seconds = UNSET
    refuse_late: bool | UnsetType = UNSET
    default_tenant: TenantPatch | UnsetType = UNSET
    """Of every tenant that is not named."""
    tenants: dict[str, TenantPatch | None] | UnsetType = UNSET
    """By name; null makes one a tenant like those that are not named. Others stay."""
    log_level: LogLevel | UnsetType = UNSET
    """Of the server; the engine process keeps its own."""


class TenantAnswer(msgspec.Struct, kw_only=True):
    weight: float
    max_running: int | None
    max_queued: int | None
    tokens_per_minute: int | None


class LimitsAnswer(msgspec.Struct, kw_only=True):
    """The answer of both: what holds now."""

    max_num_queued_reqs: int | None
    max_num_queued_tokens: int | None
    default_timeout: float | None
    default_queue_timeout: float | None
    default_ttft_timeout: float | None
    refuse_late: bool
    default_tenant: TenantAnswer
    tenants: dict[str, TenantAnswer]
    log_level: str


class AdminRoutes:
    """Shows and changes limits."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._decoder = msgspec.json.Decoder(LimitsPatch)

    async def limits(self) -> Response:
        """What the engine takes on at present."""
        return json_response(_described(self._service.engine.limits))

    async def update_limits(self, request: Request) -> Response:
        """Change some of it, from now on; what was admitted stays. Answers with what holds then."""
        patch = await read_json(request, self._decoder, self._service.options.max_body_bytes)
        limits = patched(self._service.engine.limits, patch)
        self._service.engine.update_limits(limits)
        if not isinstance(patch.log_level, UnsetType):
            set_log_level(patch.log_level)
        return json_response(_described(limits))


def patched(limits: Limits, patch: LimitsPatch) -> Limits:
    """Return the limits with the changes; ValidationError names a field that is out of range."""
    for name in LimitsPatch.__struct_fields__:
        value = getattr(patch, name)
        if isinstance(value, UnsetType) or name in ("log_level", "tenants", "default_tenant"):
            continue
        limits = _replaced(limits, ENGINE_NAMES.get(name, name), value, name)
    if not isinstance(patch.default_tenant, UnsetType):
        default = _patched_tenant(limits.default_tenant, patch.default_tenant, "default_tenant")
        limits = replace(limits, default_tenant=default)
    if not isinstance(patch.tenants, UnsetType):
        tenants = dict(limits.tenants)
        for name, tenant in patch.tenants.items():
            if tenant is None:
                tenants.pop(name, None)
            else:
                tenants[name] = _patched_tenant(limits.of(name), tenant, f"tenants.{name}")
        limits = replace(limits, tenants=tenants)
    return limits


def set_log_level(name: LogLevel) -> None:
    """Log this much from now on; said at a level at which it is seen before or after."""
    logger = logging.getLogger(PACKAGE_LOGGER)
    old, new = logger.getEffectiveLevel(), logging.getLevelNamesMapping()[name.upper()]
    if new <= old:
        logger.setLevel(new)
    if new != old:
        seen = max(logging.INFO, min(old, new))
        log.log(seen, "limit log_level: %s -> %s", logging.getLevelName(old).lower(), name)
    logger.setLevel(new)


def _patched_tenant(tenant: TenantLimits, patch: TenantPatch, path: str) -> TenantLimits:
    for name in TenantPatch.__struct_fields__:
        value = getattr(patch, name)
        if not isinstance(value, UnsetType):
            tenant = _replaced(tenant, name, value, f"{path}.{name}")
    return tenant


def _replaced(limits: Any, name: str, value: object, parameter: str) -> Any:
    try:
        return replace(limits, **{name: value})
    except ConfigError as error:
        raise ValidationError(str(error), parameter=parameter, value=value) from error


def _described(limits: Limits) -> LimitsAnswer:
    level = logging.getLogger(PACKAGE_LOGGER).getEffectiveLevel()
    return LimitsAnswer(
        max_num_queued_reqs=limits.max_num_queued_reqs,
        max_num_queued_tokens=limits.max_num_queued_tokens,
        default_timeout=limits.default_timeout_s,
        default_queue_timeout=limits.default_queue_timeout_s,
        default_ttft_timeout=limits.default_ttft_timeout_s,
        refuse_late=limits.refuse_late,
        default_tenant=TenantAnswer(**asdict(limits.default_tenant)),
        tenants={name: TenantAnswer(**asdict(tenant)) for name, tenant in limits.tenants.items()},
        log_level=logging.getLevelName(level).lower(),
    )
