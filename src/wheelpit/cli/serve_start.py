"""Start an engine and a server around it, and say how that goes: what `wheelpit serve` does.

bind ── answer "loading" ── load ── serve ── drain ── end
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wheelpit.cli.startup import StartupClock
from wheelpit.errors import ConfigError, ValidationError

if TYPE_CHECKING:
    import socket
    import ssl

    from wheelpit.engine.arg_utils import AsyncEngineArgs
    from wheelpit.engine.async_engine import AsyncLLMEngine
    from wheelpit.engine.served_model import ServedModel
    from wheelpit.server.listen import Listen
    from wheelpit.server.loading import LoadingPage
    from wheelpit.server.options import ServerOptions

log = logging.getLogger(__name__)


def start_and_run(
    engine_args: AsyncEngineArgs,
    options: ServerOptions,
    listen: Listen,
    clock: StartupClock,
    worker: Sequence[str] | None = None,
) -> int:
    """Start and run; returns the exit code. worker: what to run as the engine; None is ours."""
    with _ending_on_signal():
        engine, sock = _load(engine_args, listen, clock, worker)
        # Imported by `_start` already, while the model loaded.
        from wheelpit.server.run import run

        def announce(url: str) -> None:
            name = (options.served_model_names or engine_args.served_model_names)[0]
            needs_key = bool(options.api_keys or engine.tenant_keys)
            print(announcement(url, name, needs_key, clock.total_s()), flush=True)

        return run(engine, options, listen, sock, on_ready=announce)


@contextmanager
def _ending_on_signal() -> Iterator[None]:
    """Until the server handles signals itself, end in good order: no process is left behind."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: sys.exit(0)) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _load(
    engine_args: AsyncEngineArgs,
    listen: Listen,
    clock: StartupClock,
    worker: Sequence[str] | None,
) -> tuple[AsyncLLMEngine, socket.socket]:
    """Return an engine that is ready, and the socket, which was answered until now."""
    from wheelpit.server.listen import BACKLOG, bind, listen_error
    from wheelpit.server.loading import LoadingPage, answering

    # First of all: mistakes are told before minutes are spent on loading.
    tls = load_tls(listen)
    sock = bind(listen)
    try:
        try:
            sock.listen(BACKLOG)
        except OSError as error:
            raise listen_error(listen, error) from error
        page = LoadingPage()
        with answering(sock, page, tls):
            return _start(engine_args, clock, page, worker), sock
    except BaseException:
        sock.close()
        raise


def chaotic_worker(text: str) -> Sequence[str]:
    """An engine process that fails on purpose, with a loud warning. ConfigError."""
    from wheelpit.engine.chaos import Chaos

    chaos = Chaos.parse(text)
    log.warning("=" * 72)
    log.warning("--chaos %s: the engine WILL FAIL ON PURPOSE. For tests only.", chaos)
    log.warning("Raise --max-restarts, or it will be given up soon.")
    log.warning("=" * 72)
    return chaos.worker


def _start(
    engine_args: AsyncEngineArgs,
    clock: StartupClock,
    page: LoadingPage,
    worker: Sequence[str] | None,
) -> AsyncLLMEngine:
    """Return an engine that is ready; the HTTP stack is imported while its process loads."""
    from wheelpit.engine.async_engine import AsyncLLMEngine

    def on_engine_phase(name: str, seconds: float) -> None:
        page.phase = f"engine: {name}"
        clock.line(f"  {name}", seconds)

    clock.phase("imports")
    page.phase = "imports"
    if worker is None:
        engine = AsyncLLMEngine.launch(engine_args)
    else:
        engine = AsyncLLMEngine.launch(engine_args, worker=worker)
    try:
        clock.phase("config, tokenizer, engine process")
        page.phase = "config, tokenizer, engine process"
        import wheelpit.server.run  # noqa: F401  # 0.3 s, for which the engine need not wait

        _check_chat_template(engine.model_config)
        clock.phase("HTTP stack, while the engine loads:")
        engine.wait_until_ready(on_engine_phase)
        clock.phase("waiting for the engine")
    except BaseException:
        engine.shutdown()
        raise
    return engine


def load_tls(listen: Listen) -> ssl.SSLContext | None:
    """Load the certificate as the server will; ConfigError says which file is wrong."""
    if listen.ssl_certfile is None:
        return None
    import ssl

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    named = f"--ssl-certfile {listen.ssl_certfile}"
    try:
        if listen.ssl_keyfile is not None:
            named += f" with --ssl-keyfile {listen.ssl_keyfile}"
        tls.load_cert_chain(listen.ssl_certfile, listen.ssl_keyfile)
        if listen.ssl_ca_certs is not None:
            named = f"--ssl-ca-certs {listen.ssl_ca_certs}"
            tls.load_verify_locations(listen.ssl_ca_certs)
            tls.verify_mode = ssl.VerifyMode(listen.ssl_cert_reqs)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"{named} cannot be used: {error.strerror or error}") from error
    return tls


def _check_chat_template(model: ServedModel) -> None:
    """Compile the template before the first request: an operator's must work, a model's should."""
    if model.chat_template_override is not None:
        model.chat_template_override.check()
    elif model.tokenizer is not None and model.tokenizer.chat_template is not None:
        try:
            model.tokenizer.chat_template_for().check()
        except ValidationError as error:
            log.warning("chat will not work, completions will: %s", error)


def announcement(url: str, model: str, needs_key: bool, total_s: float) -> str:
    """One line to read and one to paste."""
    import json
    import shlex

    shown = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    base, socket_flag = shown, ""
    if shown.startswith("unix:"):
        base = "http://localhost"
        socket_flag = f"--unix-socket {shlex.quote(shown.removeprefix('unix:'))} "
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]})
    key = '-H "Authorization: Bearer $WHEELPIT_API_KEY" ' if needs_key else ""
    is_open = not needs_key and shown != url
    note = "; open to the network without an API key" if is_open else ""
    curl = (
        f"curl {socket_flag}{base}/v1/chat/completions {key}"
        f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
    )
    return f"Ready in {total_s:.1f} s: {model} at {shown}/v1{note}. Try:\n{curl}"
