"""The tenants' file: what it may say, and how it is refused."""

from __future__ import annotations

import hashlib

import pytest

from wheelpit.engine.limits import TenantLimits
from wheelpit.engine.tenant_config import TenantConfig, load_tenant_config
from wheelpit.errors import ConfigError

SECRET = "sk-very-secret"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
WHOLE = f"""
[default]
max_queued = 20
tokens_per_minute = 60_000

[tenants.research]
api_keys = ["{SECRET}", "sk-second"]
weight = 2
max_running = 16

[tenants.batch]
api_key_sha256 = ["{hashlib.sha256(b"sk-batch").hexdigest().upper()}"]
weight = 0.5
"""


@pytest.fixture
def load(tmp_path):
    def load_text(text):
        path = tmp_path / "tenants.toml"
        path.write_text(text)
        return load_tenant_config(str(path))

    return load_text


def test_a_whole_file(load):
    config = load(WHOLE)
    assert config.default == TenantLimits(max_queued=20, tokens_per_minute=60_000)
    assert config.tenants == {
        "research": TenantLimits(weight=2.0, max_running=16),
        "batch": TenantLimits(weight=0.5),
    }
    assert config.keys == {
        DIGEST: "research",
        hashlib.sha256(b"sk-second").hexdigest(): "research",
        hashlib.sha256(b"sk-batch").hexdigest(): "batch",
    }


def test_everything_may_be_left_out(load):
    assert load("") == TenantConfig()
    assert load("[tenants.a]").tenants == {"a": TenantLimits()}


def test_names_of_tenants_are_free(load):
    assert list(load('[tenants."Team 7, Ünit"]\nweight = 1.5').tenants) == ["Team 7, Ünit"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tenant.a]", r"the file has unknown entries \['tenant'\]; known are"),
        ("[default]\nmax_quued = 1", r"default has unknown entries \['max_quued'\]"),
        ("[tenants.a]\nwieght = 1", r"tenants.a has unknown entries \['wieght'\]"),
        ('[default]\napi_keys = ["x"]', r"default has unknown entries \['api_keys'\]"),
        ("[tenants.a]\nmax_running = 1.5", "tenants.a.max_running is 1.5, must be an integer"),
        ("[tenants.a]\nmax_running = true", "tenants.a.max_running is True, must be an integer"),
        ("[tenants.a]\nmax_running = 0", "tenants.a.max_running is 0, must be at least 1"),
        ('[tenants.a]\nweight = "2"', "tenants.a.weight is '2', must be a number"),
        ("[tenants.a]\nweight = -1", "tenants.a.weight is -1, must be positive"),
        ("[default]\ntokens_per_minute = 0", "default.tokens_per_minute is 0, must be at least 1"),
        ("default = 5", "default must be a table"),
        ("tenants = []", "tenants must be a table"),
        ("[tenants]\na = 5", "tenants.a must be a table"),
        ("[tenants.a]\nweight = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(load, text, message):
    with pytest.raises(ConfigError, match=message):
        load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'[tenants.a]\napi_keys = "{SECRET}"', "tenants.a.api_keys must be a list of non-empty"),
        (f'[tenants.a]\napi_keys = ["{SECRET}", 5]', "tenants.a.api_keys must be a list"),
        (f'[tenants.a]\napi_keys = ["{SECRET}", ""]', "tenants.a.api_keys must be a list"),
        (f'[tenants.a]\napi_key_sha256 = ["{SECRET}"]', r"api_key_sha256\[0\] must be 64 hex"),
        (
            f'[tenants.a]\napi_keys = ["{SECRET}"]\n[tenants.b]\napi_key_sha256 = ["{DIGEST}"]',
            "tenants.b and tenants.a share an API key",
        ),
        (f'[tenants.a]\napi_keys = ["{SECRET}\n', "is not TOML"),
    ],
)
def test_no_message_shows_a_key(load, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(text)
    error = caught.value
    while error is not None:
        assert SECRET not in str(error)
        assert DIGEST not in str(error)
        error = error.__cause__


def test_keys_are_kept_as_hashes_that_are_not_shown(load):
    config = load(WHOLE)
    assert SECRET not in repr(config)
    assert DIGEST not in repr(config)


def test_one_tenant_may_have_a_key_twice(load):
    text = f'[tenants.a]\napi_keys = ["{SECRET}"]\napi_key_sha256 = ["{DIGEST}"]'
    assert load(text).keys == {DIGEST: "a"}


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.toml' cannot be read: No such file"):
        load_tenant_config(str(tmp_path / "nowhere.toml"))
    odd = tmp_path / "odd.toml"
    odd.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_tenant_config(str(odd))
