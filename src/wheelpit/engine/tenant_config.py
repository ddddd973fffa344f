"""The file that says who the tenants are and what each may have.

    [default]                     # everybody who is not named below
    max_queued = 20
    tokens_per_minute = 60_000

    [tenants.research]
    api_keys = ["..."]            # or, so that no key is in the file:
    api_key_sha256 = ["..."]      # printf %s KEY | sha256sum
    weight = 2.0
    max_running = 16
    max_queued = 100
    tokens_per_minute = 600_000

A table and every entry in it may be left out. Keys are kept as their hashes alone and appear in no
message.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wheelpit.engine.limits import TenantLimits
from wheelpit.errors import ConfigError

LIMITS: Mapping[str, tuple[type, ...]] = {
    "weight": (int, float),
    "max_running": (int,),
    "max_queued": (int,),
    "tokens_per_minute": (int,),
}
SECRETS = ("api_keys", "api_key_sha256")


@dataclass(frozen=True, slots=True)
class TenantConfig:
    """What such a file says. keys: SHA-256 of an API key, 64 lower-case hex digits -> tenant."""

    tenants: Mapping[str, TenantLimits] = field(default_factory=dict)
    default: TenantLimits = field(default_factory=TenantLimits)
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)


def load_tenant_config(path: str) -> TenantConfig:
    """Read and check a file. ConfigError names the file, the tenant and the entry."""
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"tenant_config {path!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"tenant_config {path!r} is not UTF-8: {error.reason}") from error
    except tomllib.TOMLDecodeError as error:
        # Not its cause: that would show the line, and with it a key.
        raise ConfigError(f"tenant_config {path!r} is not TOML: {error}") from None
    try:
        return parse_tenant_config(found)
    except ConfigError as error:
        raise ConfigError(f"tenant_config {path!r}: {error}") from error


def parse_tenant_config(found: Mapping[str, Any]) -> TenantConfig:
    """Check what was read from TOML."""
    _check_names("the file", found, ("default", "tenants"))
    tenants: dict[str, TenantLimits] = {}
    keys: dict[str, str] = {}
    for name, entry in _table("tenants", found.get("tenants", {})).items():
        table = _table(f"tenants.{name}", entry)
        tenants[name] = _limits(f"tenants.{name}", table, SECRETS)
        for digest in _digests(f"tenants.{name}", table):
            if keys.setdefault(digest, name) != name:
                raise ConfigError(f"tenants.{name} and tenants.{keys[digest]} share an API key")
    default = _limits("default", _table("default", found.get("default", {})), ())
    return TenantConfig(tenants, default, keys)


def _limits(where: str, table: Mapping[str, Any], more_names: tuple[str, ...]) -> TenantLimits:
    _check_names(where, table, (*more_names, *LIMITS))
    given = {name: value for name, value in table.items() if name in LIMITS}
    for name, value in given.items():
        if not isinstance(value, LIMITS[name]) or isinstance(value, bool):
            kind = "a number" if float in LIMITS[name] else "an integer"
            raise ConfigError(f"{where}.{name} is {value!r}, must be {kind}")
    try:
        return TenantLimits(**given)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from error


def _digests(where: str, table: Mapping[str, Any]) -> list[str]:
    """The hashes of its keys. Messages say where a key is wrong, never what it is."""
    digests = []
    for name in SECRETS:
        values = table.get(name, [])
        if not isinstance(values, list) or not all(isinstance(v, str) and v for v in values):
            raise ConfigError(f"{where}.{name} must be a list of non-empty strings")
        for index, value in enumerate(values):
            if name == "api_keys":
                digests.append(hashlib.sha256(value.encode()).hexdigest())
            elif re.fullmatch("[0-9a-fA-F]{64}", value):
                digests.append(value.lower())
            else:
                raise ConfigError(f"{where}.{name}[{index}] must be 64 hex digits")
    return digests


def _table(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a table")
    return value


def _check_names(where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise ConfigError(f"{where} has unknown entries {unknown}; known are {sorted(known)}")
