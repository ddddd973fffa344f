"""The engine process: drain the inbox, step, deliver.

Run as `python -m wheelpit.engine.worker [--die-with-parent] FD LOG_LEVEL`: FD is one end of a
socket pair whose other end the front end holds. When that side closes, the front end is gone and
this process ends: between steps because the inbox says so, within a step because a watching thread
does, and, where the system can do that, by a signal, which works on a process that is stopped or
hangs in native code, too. There is no asyncio here.

With `--fork-server` the process is none itself, but has such processes forked from it, each with a
socket of its own (`forking.py`).
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import assert_never

from wheelpit.config import EngineConfig
from wheelpit.engine.core import EngineCore, Runner
from wheelpit.engine.forking import serve_forks
from wheelpit.engine.messages import (
    Abort,
    AddRequest,
    Call,
    CallResult,
    Phase,
    Ready,
    SetTenants,
    Shutdown,
    Start,
    StartFailed,
    StepOutput,
    ToEngine,
)
from wheelpit.engine.process import DIE_WITH_PARENT, ENFORCE_EAGER, FORK_SERVER
from wheelpit.engine.transport import BlockingChannel
from wheelpit.errors import WheelpitError
from wheelpit.kernels.build import start_build

log = logging.getLogger(__name__)


PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
"""See prctl(2)."""

PROCESS_NAME = b"wheelpit-engine"
"""What `ps` and `pgrep -x` call an engine process, on Linux; no longer than 15 bytes."""

LoadRunner = Callable[[EngineConfig, Callable[[str, float], None]], Runner]


def main(load_runner: LoadRunner, prepare: Callable[[], None] = lambda: None) -> int:
    """Serve one front end until it leaves. Returns the exit status.

    prepare: does what every engine needs, whatever it is to load; once for all of them.
    """
    logging.basicConfig(
        level=int(sys.argv[-1]),
        format="%(levelname)s %(asctime)s [engine] %(message)s",
        datefmt="%H:%M:%S",
    )
    sock = socket.socket(fileno=int(sys.argv[-2]))
    if DIE_WITH_PARENT in sys.argv:
        _die_with_parent()
    started = time.monotonic()
    prepare()
    prepare_s = time.monotonic() - started
    if FORK_SERVER not in sys.argv:
        return _run(sock, load_runner, prepare_s)

    def run_forked(sock: socket.socket, number: int) -> int:
        _die_with_parent()
        return _run(sock, load_runner, prepare_s if number == 0 else 0.0)

    serve_forks(sock, run_forked)
    # An interpreter with torch takes a while to end in good order, and has nothing to put in order.
    os._exit(0)


def _run(sock: socket.socket, load_runner: LoadRunner, prepare_s: float) -> int:
    """Be one engine. prepare_s: what was spent on it before."""
    _call_prctl(PR_SET_NAME, PROCESS_NAME)
    _exit_when_front_end_is_gone(sock)
    channel = BlockingChannel(sock, ToEngine)
    channel.send(Phase("import", prepare_s))
    core = _start(channel, load_runner)
    if core is None:
        return 1
    # The model's objects live as long as the process: no collection need look at them again.
    gc.collect()
    gc.freeze()
    serve(channel, core)
    return 0


def serve(channel: BlockingChannel, core: EngineCore) -> None:
    """Step while there is work, sleep in the socket while there is none."""
    while True:
        messages = channel.receive(wait=not core.has_work)
        if messages is None:
            return
        for message in messages:
            if isinstance(message, Shutdown):
                return
            _handle(message, channel, core)
        # At once, not after the step that follows.
        expired = core.expire()
        if expired is not None:
            channel.send(expired)
        if core.has_work:
            channel.send(core.step())
        elif messages:
            # Nothing runs any more (an abort emptied the batch, say): tell the gauges.
            channel.send(StepOutput([], core.stats()))


def _handle(
    message: Start | AddRequest | Abort | SetTenants | Call,
    channel: BlockingChannel,
    core: EngineCore,
) -> None:
    match message:
        case AddRequest():
            core.add(message)
        case Abort(request_ids=request_ids):
            core.abort(request_ids)
        case SetTenants(tenants=tenants, default=default):
            core.set_tenants(tenants, default)
        case Call(call_id=call_id, method=method):
            channel.send(_call(call_id, method, core))
        case Start():
            log.error("ignored a second Start message")
        case _:
            assert_never(message)


def _call(call_id: int, method: str, core: EngineCore) -> CallResult:
    if method == "reset_prefix_cache":
        return CallResult(call_id, core.reset_prefix_cache())
    return CallResult(call_id, error=f"the engine has no method {method!r}")


def _start(channel: BlockingChannel, load_runner: LoadRunner) -> EngineCore | None:
    """Receive the config, load the model, report. None if it failed or nobody waits any more."""
    messages = channel.receive(wait=True)
    if messages is None:
        return None
    start = messages[0]
    assert isinstance(start, Start), f"first message is {type(start).__name__}"
    config: EngineConfig = start.config
    try:
        runner = load_runner(config, lambda name, seconds: channel.send(Phase(name, seconds)))
        core = EngineCore(
            config,
            runner,
            time.monotonic,
            announce=channel.send,
        )
    except Exception as error:
        if not isinstance(error, WheelpitError):
            log.exception("the engine could not start")
        channel.send(StartFailed(type(error).__name__, str(error)))
        channel.flush_blocking()
        return None
    channel.send(
        Ready(
            dtype=runner.dtype,
            device=runner.device,
            num_blocks=runner.num_blocks,
            block_size=runner.block_size,
            max_num_seqs=config.scheduler.max_num_seqs,
            max_num_batched_tokens=config.scheduler.max_num_batched_tokens,
            vocab_size=runner.vocab_size,
            compute_plan=runner.compute_plan,
        )
    )
    for message in messages[1:]:
        if not isinstance(message, Shutdown):
            _handle(message, channel, core)
    return core


def import_runner() -> None:
    """Import torch. The first time on a machine, kernels are compiled meanwhile."""
    build = None if ENFORCE_EAGER in sys.argv else start_build()
    import wheelpit.runner.model_runner  # noqa: F401  # to have it

    if build is not None:
        build.wait()


def load_model_runner(config: EngineConfig, on_phase: Callable[[str, float], None]) -> Runner:
    """Load the weights and warm up; each phase is reported with its seconds."""
    from wheelpit.runner.model_runner import ModelRunner

    build = None if config.model.enforce_eager else start_build()
    return ModelRunner(config, on_phase=on_phase, build=build)


def _die_with_parent() -> None:
    """Have Linux kill this process when its parent ends. If that has ended already, the socket has
    been closed: the watching thread sees that.
    """
    _call_prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _call_prctl(option: int, value: int | bytes) -> None:
    """Have Linux do something to this process; nothing happens elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _exit_when_front_end_is_gone(sock: socket.socket) -> None:
    """End this process as soon as the other end of the pair is closed, even within a step.

    A thread, because a step can be long and native code does not look at the socket. It waits
    for hang-up only (no events asked for), so it never wakes for traffic.
    """

    def watch() -> None:
        poller = select.poll()
        poller.register(sock.fileno(), select.POLLHUP)
        poller.poll()
        # A clean end in the main thread is under way, or a step is running: do not wait for it.
        time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=watch, name="front-end-watch", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(load_model_runner, import_runner))
