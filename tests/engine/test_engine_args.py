"""Engine arguments about too much work: names, defaults, and what a server adds."""

from __future__ import annotations

import pytest

from wheelpit import LLM, AsyncEngineArgs, ConfigError
from wheelpit.config import SchedulerConfig
from wheelpit.engine.arg_utils import SERVER_BOUNDS, EngineArgs
from wheelpit.engine.limits import Limits, TenantLimits


def limits_of(args):
    return args.create_limits(args.load_tenants())


def test_a_program_has_no_limits_unless_it_asks():
    assert limits_of(AsyncEngineArgs()) == Limits()


def test_a_server_has_bounds_unless_it_says_otherwise():
    limits = limits_of(AsyncEngineArgs.for_server({"model": "m"}))
    assert limits.max_num_queued_reqs == SERVER_BOUNDS["max_num_queued_reqs"]
    assert limits.max_num_queued_tokens == SERVER_BOUNDS["max_num_queued_tokens"]
    given = {"max_num_queued_reqs": None, "max_num_queued_tokens": 5}
    limits = limits_of(AsyncEngineArgs.for_server(given))
    assert (limits.max_num_queued_reqs, limits.max_num_queued_tokens) == (None, 5)


def test_each_argument_arrives(tmp_path):
    path = tmp_path / "tenants.toml"
    path.write_text("[default]\nmax_queued = 3\n[tenants.a]\nweight = 2.0")
    args = AsyncEngineArgs(
        scheduling_policy="deadline",
        priority_ageing_s=5.0,
        max_num_queued_reqs=7,
        max_num_queued_tokens=8,
        default_timeout=9.0,
        default_queue_timeout=10.0,
        default_ttft_timeout=11.0,
        refuse_late=True,
        tenant_config=str(path),
    )
    assert limits_of(args) == Limits(
        max_num_queued_reqs=7,
        max_num_queued_tokens=8,
        default_timeout_s=9.0,
        default_queue_timeout_s=10.0,
        default_ttft_timeout_s=11.0,
        refuse_late=True,
        tenants={"a": TenantLimits(weight=2.0)},
        default_tenant=TenantLimits(max_queued=3),
    )
    scheduler = args.create_engine_config("", 256).scheduler
    assert (scheduler.policy, scheduler.priority_ageing_s) == ("deadline", 5.0)


def test_the_scheduler_defaults_are_the_configs():
    scheduler = EngineArgs().create_engine_config("", 256).scheduler
    default = SchedulerConfig()
    assert scheduler.policy == default.policy
    assert scheduler.priority_ageing_s == default.priority_ageing_s


@pytest.mark.parametrize("policy", ["fcfs", "priority", "deadline", "fair"])
def test_every_policy_can_be_named(policy):
    config = EngineArgs(scheduling_policy=policy).create_engine_config("", 256)
    assert config.scheduler.policy == policy


def test_a_policy_that_is_none_is_refused_with_the_names():
    with pytest.raises(ConfigError, match="one of fcfs, priority, deadline, fair"):
        EngineArgs(scheduling_policy="lottery").create_engine_config("", 256)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_num_queued_reqs", -1),
        ("max_num_queued_tokens", 0),
        ("default_timeout", 0.0),
        ("default_queue_timeout", -1.0),
        ("default_ttft_timeout", float("nan")),
    ],
)
def test_a_limit_out_of_range_is_named(name, value):
    with pytest.raises(ConfigError, match=name):
        limits_of(AsyncEngineArgs(**{name: value}))


def test_a_bad_tenants_file_stops_the_start_before_a_process_is_there(make_engine, tmp_path):
    path = tmp_path / "tenants.toml"
    path.write_text("[tenants.a]\nwieght = 2")
    with pytest.raises(ConfigError, match="wieght"):
        make_engine(tenant_config=str(path))


def test_offline_there_is_no_queue_to_bound():
    with pytest.raises(TypeError, match="max_num_queued_reqs"):
        LLM(max_num_queued_reqs=5)
