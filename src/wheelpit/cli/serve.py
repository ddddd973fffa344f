"""`wheelpit serve`: load a model and answer HTTP requests until told to stop.

Flags are vLLM's where vLLM has them. Only what is given is passed on: defaults live in
`engine/arg_utils.py`, `server/options.py` and `server/listen.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wheelpit.cli.serve_options import (
    ANSWERS,
    CACHE,
    COMPATIBLE,
    LISTEN,
    LOGS,
    MODEL,
    SCHEDULER,
    SECURITY,
    AdminKey,
    Bound,
    ChaosOption,
    DefaultQueueTimeout,
    DefaultTimeout,
    DefaultTtftTimeout,
    Flag,
    Fraction,
    KeepAlive,
    MaxQueuedReqs,
    MaxQueuedTokens,
    MaxRestarts,
    Number,
    OverloadStatus,
    PriorityAgeing,
    RefuseLate,
    RestartWindow,
    ResumeWindow,
    StallTimeout,
    TenantConfig,
    Text,
    count,
    json_option,
    option,
    parse_json_object,
    parse_json_strings,
    switch,
)
from wheelpit.cli.serve_start import chaotic_worker, start_and_run
from wheelpit.cli.startup import StartupClock

if TYPE_CHECKING:
    from wheelpit.engine.arg_utils import AsyncEngineArgs
    from wheelpit.server.listen import Listen
    from wheelpit.server.options import ServerOptions

LISTEN_OPTIONS = (
    "host",
    "port",
    "uds",
    "ssl_keyfile",
    "ssl_certfile",
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_ciphers",
    "access_log",
    "shutdown_timeout_s",
)
SERVER_OPTIONS = (
    "admin_key",
    "overload_status",
    "keep_alive_s",
    "resume_window_s",
    "root_path",
    "metrics_prefix",
    "max_body_bytes",
    "enable_request_id_headers",
    "allowed_origins",
    "allowed_methods",
    "allowed_headers",
    "allow_credentials",
    "response_role",
    "return_tokens_as_token_ids",
    "force_include_usage",
)


def serve(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help='"builtin" (the default), a folder or a hub id.',
            metavar="MODEL",
            show_default=False,
        ),
    ] = None,
    # --- the model
    served_model_name: Annotated[
        list[str] | None,
        option(MODEL, "Name in requests; repeat it for more, the first is echoed."),
    ] = None,
    tokenizer: Annotated[Text, option(MODEL, "Folder or hub id, if not the model's own.")] = None,
    skip_tokenizer_init: Annotated[
        Flag, option(MODEL, "Token ids only, no text.", "--skip-tokenizer-init")
    ] = None,
    revision: Annotated[Text, option(MODEL, "Branch, tag or commit on the hub.")] = None,
    download_dir: Annotated[Text, option(MODEL, "In place of the hub's cache.")] = None,
    hf_token: Annotated[Text, option(MODEL, "For the hub, in place of a log-in.")] = None,
    load_format: Annotated[Text, option(MODEL, "auto, safetensors, dummy (random).")] = None,
    dtype: Annotated[Text, option(MODEL, "auto, float32, bfloat16, float16.")] = None,
    device: Annotated[Text, option(MODEL, "auto, cpu, cuda.")] = None,
    num_threads: Annotated[Number, option(MODEL, "Most CPU threads. Default: the cores.")] = None,
    max_model_len: Annotated[Text, option(MODEL, "Context in tokens: 4096, 16k, auto.")] = None,
    seed: Annotated[Number, option(MODEL, "Of requests that have none. Default: 0.")] = None,
    # --- the cache
    block_size: Annotated[Number, option(CACHE, "Tokens a block. Default: 16.")] = None,
    gpu_memory_utilization: Annotated[
        Fraction, option(CACHE, "Share of the memory to use, in (0, 1].")
    ] = None,
    kv_cache_memory_bytes: Annotated[Number, count(CACHE, "Exact size: 2G, 512M.")] = None,
    num_gpu_blocks_override: Annotated[Number, option(CACHE, "Exact number of blocks.")] = None,
    enable_prefix_caching: Annotated[
        Flag, switch(CACHE, "prefix-caching", "Reuse what prompts share. Default: on.")
    ] = None,
    # --- the scheduler
    max_num_seqs: Annotated[Number, option(SCHEDULER, "Sequences that run at a time.")] = None,
    max_num_batched_tokens: Annotated[Number, count(SCHEDULER, "Tokens of one step.")] = None,
    enable_chunked_prefill: Annotated[
        Flag, switch(SCHEDULER, "chunked-prefill", "Split long prompts. Default: on.")
    ] = None,
    long_prefill_token_threshold: Annotated[
        Number, option(SCHEDULER, "Most prompt tokens of one sequence in a step.")
    ] = None,
    max_decode_slowdown: Annotated[
        Fraction,
        option(
            SCHEDULER,
            "Times as long a step may take for long prompts beside it. 0: any. Default: 1.75.",
        ),
    ] = None,
    scheduling_policy: Annotated[
        Text, option(SCHEDULER, "Who goes first: fcfs, priority, deadline, fair (tenants in turn).")
    ] = None,
    # --- when there is too much work
    max_num_queued_reqs: MaxQueuedReqs = None,
    max_num_queued_tokens: MaxQueuedTokens = None,
    overload_status: OverloadStatus = None,
    refuse_late: RefuseLate = None,
    default_timeout: DefaultTimeout = None,
    default_queue_timeout: DefaultQueueTimeout = None,
    default_ttft_timeout: DefaultTtftTimeout = None,
    tenant_config: TenantConfig = None,
    priority_ageing_s: PriorityAgeing = None,
    keep_alive_s: KeepAlive = None,
    # --- when the engine fails
    engine_stall_timeout: StallTimeout = None,
    max_restarts: MaxRestarts = None,
    restart_window: RestartWindow = None,
    resume_window_s: ResumeWindow = None,
    chaos: ChaosOption = None,
    # --- listening
    host: Annotated[Text, option(LISTEN, "Default: all interfaces.")] = None,
    port: Annotated[Number, option(LISTEN, "0 chooses a free one. Default: 8000.")] = None,
    uds: Annotated[Text, option(LISTEN, "A Unix socket, in place of host and port.")] = None,
    root_path: Annotated[Text, option(LISTEN, "Prefix that a proxy adds.")] = None,
    max_body_bytes: Annotated[Number, count(LISTEN, "Longer requests are refused.")] = None,
    shutdown_timeout_s: Annotated[
        Fraction,
        option(
            LISTEN,
            "Seconds that running requests have to finish after a signal. Default: 30.",
            "--shutdown-timeout",
        ),
    ] = None,
    # --- security
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=SECURITY, help="Repeat it for more.", envvar="WHEELPIT_API_KEY"
        ),
    ] = None,
    admin_key: AdminKey = None,
    ssl_keyfile: Annotated[Text, option(SECURITY, "TLS: the private key.")] = None,
    ssl_certfile: Annotated[Text, option(SECURITY, "TLS: the certificate.")] = None,
    ssl_ca_certs: Annotated[Text, option(SECURITY, "TLS: who signs client certificates.")] = None,
    ssl_cert_reqs: Annotated[
        Number, option(SECURITY, "Client certificates: 0 none, 1 optional, 2 required.")
    ] = None,
    ssl_ciphers: Annotated[Text, option(SECURITY, "OpenSSL's cipher list.")] = None,
    allowed_origins: Annotated[
        Any, json_option(SECURITY, parse_json_strings, 'CORS: ["*"] for all. Default: none.')
    ] = None,
    allowed_methods: Annotated[
        Any, json_option(SECURITY, parse_json_strings, "CORS. Default: all.")
    ] = None,
    allowed_headers: Annotated[
        Any, json_option(SECURITY, parse_json_strings, "CORS. Default: all.")
    ] = None,
    allow_credentials: Annotated[
        Flag, option(SECURITY, "CORS: cookies, too.", "--allow-credentials")
    ] = None,
    # --- answers
    chat_template: Annotated[Text, option(ANSWERS, "File with a jinja template.")] = None,
    response_role: Annotated[Text, option(ANSWERS, "Default: assistant.")] = None,
    generation_config: Annotated[
        Text, option(ANSWERS, "auto: the model's sampling defaults; vllm: none.")
    ] = None,
    override_generation_config: Annotated[
        Any, json_option(ANSWERS, parse_json_object, 'Such as {"temperature": 0.5}.')
    ] = None,
    max_logprobs: Annotated[Number, option(ANSWERS, "Most that a request may ask for.")] = None,
    return_tokens_as_token_ids: Annotated[
        Flag, option(ANSWERS, "Logprobs name tokens by id.", "--return-tokens-as-token-ids")
    ] = None,
    force_include_usage: Annotated[
        Flag, option(ANSWERS, "Usage in every stream.", "--enable-force-include-usage")
    ] = None,
    enable_docs: Annotated[
        Flag,
        option(
            ANSWERS,
            "/docs on, or /docs and /openapi.json off.",
            "--enable-fastapi-docs/--disable-fastapi-docs",
        ),
    ] = None,
    # --- logs and metrics
    log_level: Annotated[Text, option(LOGS, "Default: info.")] = None,
    metrics_prefix: Annotated[Text, option(LOGS, "wheelpit, or vllm for its dashboards.")] = None,
    disable_log_stats: Annotated[
        Flag, option(LOGS, "No summary in the log.", "--disable-log-stats")
    ] = None,
    enable_log_requests: Annotated[
        Flag, switch(LOGS, "log-requests", "Log each request's parameters.")
    ] = None,
    enable_request_id_headers: Annotated[
        Flag, switch(LOGS, "request-id-headers", "X-Request-Id in answers. Default: on.")
    ] = None,
    access_log: Annotated[
        Flag,
        option(
            LOGS,
            "One line a request. Default: off.",
            "--enable-uvicorn-access-log/--disable-uvicorn-access-log",
        ),
    ] = None,
    uvicorn_log_level: Annotated[Text, option(LOGS, "Of the HTTP stack alone.")] = None,
    # --- without effect here, or refused by name
    model_option: Annotated[Text, option(COMPATIBLE, "Same as MODEL.", "--model")] = None,
    enforce_eager: Annotated[
        Flag, option(COMPATIBLE, "Only torch's own kernels.", "--enforce-eager")
    ] = None,
    trust_remote_code: Annotated[
        Flag, option(COMPATIBLE, "Ignored: no code comes with models.", "--trust-remote-code")
    ] = None,
    tensor_parallel_size: Annotated[
        Number, option(COMPATIBLE, "Only 1.", "--tensor-parallel-size", "-tp")
    ] = None,
    pipeline_parallel_size: Annotated[
        Number, option(COMPATIBLE, "Only 1.", "--pipeline-parallel-size", "-pp")
    ] = None,
    quantization: Annotated[Text, option(COMPATIBLE, "None yet.", "--quantization", "-q")] = None,
    kv_cache_dtype: Annotated[Text, option(COMPATIBLE, "Only auto.")] = None,
) -> None:
    """Serve MODEL over OpenAI's HTTP API."""
    clock = StartupClock(lambda line: print(line, flush=True))
    clock.phase("Python and the command line")
    # A list option that is not given is an empty tuple.
    given = {name: value for name, value in context.params.items() if value not in (None, ())}
    if "model_option" in given:
        given.setdefault("model", given.pop("model_option"))
    _set_up_logging(given.pop("log_level", "info"), given.pop("uvicorn_log_level", None))
    to_fail = given.pop("chaos", None)
    listen, options, engine_args = split_options(given)
    worker = None if to_fail is None else chaotic_worker(to_fail)
    raise typer.Exit(start_and_run(engine_args, options, listen, clock, worker))


def split_options(
    given: Mapping[str, Any],
) -> tuple[Listen, ServerOptions, AsyncEngineArgs]:
    """Build the three sets of options that the flags fill; ConfigError names a wrong one."""
    from wheelpit.engine.arg_utils import AsyncEngineArgs
    from wheelpit.server.listen import Listen
    from wheelpit.server.options import ServerOptions

    rest = dict(given)
    listen = Listen(**{name: rest.pop(name) for name in LISTEN_OPTIONS if name in rest})
    server = {name: rest.pop(name) for name in SERVER_OPTIONS if name in rest}
    server["api_keys"] = tuple(rest.pop("api_key", ()))
    enable_docs = rest.pop("enable_docs", None)
    if enable_docs is not None:
        server |= {"enable_docs": enable_docs, "enable_openapi": enable_docs}
    # Bounds are on unless the flag says none.
    args = {name: v.limit if isinstance(v, Bound) else v for name, v in rest.items()}
    return listen, ServerOptions(**server), AsyncEngineArgs.for_server(args)


def _set_up_logging(level: str, uvicorn_level: str | None) -> None:
    """Log to standard error; the only place that configures handlers."""
    logging.basicConfig(
        level=_level(level, "--log-level"),
        format="%(levelname)s %(asctime)s %(message)s",
        datefmt="%H:%M:%S",
    )
    if uvicorn_level is not None:
        logging.getLogger("uvicorn").setLevel(_level(uvicorn_level, "--uvicorn-log-level"))


def _level(name: str, flag: str) -> int:
    levels = {**logging.getLevelNamesMapping(), "TRACE": 5}
    if name.upper() not in levels:
        raise typer.BadParameter(
            f"{flag} is {name!r}, must be debug, info, warning, error or critical"
        )
    return levels[name.upper()]
