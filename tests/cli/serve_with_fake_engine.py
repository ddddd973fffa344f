"""`wheelpit serve` with everything real but the model: the engine process has a fake runner.

python -m tests.cli.serve_with_fake_engine [--fails=...] serve FOLDER --port 0 ...
"""

from __future__ import annotations

import sys
from typing import Any

from tests.fake_worker import fake_worker
from wheelpit.cli.main import main
from wheelpit.engine.async_engine import AsyncLLMEngine

if __name__ == "__main__":
    arguments = sys.argv[1:]
    fails = ""
    if arguments[0].startswith("--fails="):
        fails = arguments.pop(0).partition("=")[2]
    launch = AsyncLLMEngine.launch

    def launch_fake(engine_args: Any, worker: Any = (), **options: Any) -> AsyncLLMEngine:
        chaos = "".join(word.partition("=")[2] for word in worker if word.startswith("--chaos="))
        return launch(engine_args, worker=fake_worker(fails=fails, chaos=chaos), **options)

    AsyncLLMEngine.launch = launch_fake  # type: ignore[method-assign]  # only for this process
    main(arguments)
