"""From engine arguments to a process that loads, and to all that the front end resolved for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wheelpit.config import EngineConfig
from wheelpit.engine.arg_utils import AsyncEngineArgs, EngineArgs
from wheelpit.engine.limits import Limits
from wheelpit.engine.process import EngineProcess, Engines
from wheelpit.engine.restart_settings import RestartSettings
from wheelpit.engine.served_model import ServedModel, load_model_config, load_served_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """An engine process that was told to start, and what its front end is to know.

    tenant_keys: SHA-256 of an API key, as 64 lower-case hex digits -> its tenant.
    """

    process: EngineProcess
    engines: Engines
    restarts: RestartSettings
    config: EngineConfig
    model: ServedModel
    limits: Limits
    tenant_keys: Mapping[str, str]
    log_stats: bool
    log_requests: bool


def launch_process(engine_args: EngineArgs, worker: Sequence[str]) -> Launched:
    """Check the arguments, start the process and, while it loads, read the tokenizer.

    Raises ConfigError or ModelLoadError; then no process is left.
    """
    online = engine_args if isinstance(engine_args, AsyncEngineArgs) else AsyncEngineArgs()
    tenants = online.load_tenants()
    limits = online.create_limits(tenants)
    folder, hf = load_model_config(engine_args)
    config = engine_args.create_engine_config(str(folder), hf.max_position_embeddings)
    engines = Engines(worker, config)
    process = engines.start()
    try:
        model = load_served_model(engine_args, folder, hf, config.model.max_model_len)
    except BaseException:
        process.stop()
        engines.close()
        raise
    return Launched(
        process=process,
        engines=engines,
        restarts=online.create_restart_settings(),
        config=config,
        model=model,
        limits=limits,
        tenant_keys=tenants.keys,
        log_stats=not engine_args.disable_log_stats,
        log_requests=online.enable_log_requests,
    )
