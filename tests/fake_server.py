"""The HTTP server over an engine process with a fake runner, for measuring the front end.

python -m tests.fake_server MODEL_FOLDER --port 8000
"""

from __future__ import annotations

import argparse
import sys

from tests.fake_worker import fake_worker
from wheelpit import AsyncEngineArgs, AsyncLLMEngine
from wheelpit.server.listen import Listen
from wheelpit.server.run import run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--step-ms", type=float, default=0.0)
    options = parser.parse_args()
    engine = AsyncLLMEngine.launch(
        AsyncEngineArgs(model=options.model, max_num_seqs=512),
        worker=fake_worker(step_ms=options.step_ms, num_blocks=100_000),
    )
    engine.wait_until_ready()
    return run(engine, listen=Listen(port=options.port))


if __name__ == "__main__":
    sys.exit(main())
