"""The server of `soak.py`: as `wheelpit serve` runs it, and ready to tell what it holds.

    python benchmarks/soak_server.py '{"engine": {...}, "options": {...}, "worker": null}'

Reads a line from standard input at a time and answers each with a line of JSON: "idle", whether
anything is in flight; "memory", the memory in use; "held", all that it holds (`leaks.py`). The
first line that it writes by itself has its URL. It logs to standard error.
"""

import asyncio
import gc
import json
import logging
import os
import sys
from collections.abc import Callable
from threading import Thread
from typing import Any

from leaks import (
    count_files,
    count_objects,
    count_threads,
    count_waits,
    descendants_of,
    fill_pools,
    give_back_memory,
    rss_bytes,
    sizes_of,
)

from wheelpit import AsyncEngineArgs, AsyncLLMEngine
from wheelpit.engine.process import WORKER
from wheelpit.engine.supervisor import EngineState
from wheelpit.server.app import service_of
from wheelpit.server.listen import Listen
from wheelpit.server.options import ServerOptions
from wheelpit.server.run import HttpServer, run


class Sampler:
    """Looks at a running server from within. Its methods are called on the server's loop."""

    def __init__(self, engine: AsyncLLMEngine, server: HttpServer) -> None:
        self._engine = engine
        self._server = server

    def idle(self) -> dict[str, object]:
        """What is left to wait for until the server is as it was before the first request."""
        service = service_of(self._server.app)
        return {
            "requests": self._engine.stats().num_requests,
            "live": len(service.live),
            "streams": len(service.streams),
            "connections": len(self._server._server.server_state.connections),
            "engine": int(self._engine.health().state is not EngineState.SERVING),
        }

    def memory(self) -> dict[str, int]:
        engine_pid = self._engine.engine_pid
        return {
            "front_end": rss_bytes(os.getpid()),
            "engine": 0 if engine_pid is None else rss_bytes(engine_pid),
        }

    def held(self) -> dict[str, dict[str, int]]:
        """Everything that can be counted."""
        pid, engine_pid = os.getpid(), self._engine.engine_pid
        assert engine_pid is not None, "there is no engine at the moment"
        fill_pools()
        give_back_memory()
        return {
            "memory": self.memory(),
            "counts": {
                **count_waits(),
                "threads": count_threads(pid),
                "files": count_files(pid),
                "engine files": count_files(engine_pid),
                "processes": 1 + len(descendants_of(pid)),
            },
            "sizes": sizes_of({"server": self._server, "engine": self._engine}, "wheelpit"),
            "objects": count_objects(),
        }


def answer_questions(loop: asyncio.AbstractEventLoop, engine: AsyncLLMEngine) -> None:
    """Serve standard input from a thread; its end ends the server's process."""
    (server,) = (each for each in gc.get_objects() if isinstance(each, HttpServer))
    sampler = Sampler(engine, server)
    questions: dict[str, Callable[[], Any]] = {
        "idle": sampler.idle,
        "memory": sampler.memory,
        "held": sampler.held,
    }

    async def ask(question: str) -> object:
        return questions[question]()

    def answer() -> None:
        try:
            for line in sys.stdin:
                future = asyncio.run_coroutine_threadsafe(ask(line.strip()), loop)
                print(json.dumps(future.result()), flush=True)
        finally:
            loop.call_soon_threadsafe(server.stop)

    Thread(target=answer, name="sampler", daemon=True).start()


def main() -> int:
    """Serve until told to stop."""
    settings = json.loads(sys.argv[1])
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s %(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    engine = AsyncLLMEngine.launch(
        AsyncEngineArgs.for_server(settings["engine"]), worker=settings["worker"] or WORKER
    )
    engine.wait_until_ready()

    def on_ready(url: str) -> None:
        answer_questions(asyncio.get_running_loop(), engine)
        print(json.dumps({"url": url}), flush=True)

    options = ServerOptions(**settings["options"])
    return run(engine, options, Listen(host="127.0.0.1", port=0), on_ready=on_ready)


if __name__ == "__main__":
    sys.exit(main())
