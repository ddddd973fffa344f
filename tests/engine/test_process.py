"""The engine process as the operating system sees it: orphans, guards, notebooks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.fake_worker import HANGS, fake_worker
from wheelpit.config import EngineConfig, ModelOptions
from wheelpit.engine.process import Engines

SCRIPT = """
import asyncio, sys
from wheelpit import AsyncEngineArgs, AsyncLLMEngine, SamplingParams
engine = AsyncLLMEngine.launch(AsyncEngineArgs(model={model!r}), worker={worker!r})
engine.wait_until_ready()
print(engine.engine_pid, flush=True)
async def main():
    async for output in engine.generate({prompt}, SamplingParams(max_tokens=5), "r"):
        pass
    print(output.outputs[0].finish_reason, flush=True)
asyncio.run(main())
"""


def script(model_folder, prompt="'abc'", **worker):
    return SCRIPT.format(model=str(model_folder), worker=fake_worker(**worker), prompt=prompt)


def wait_until_gone(pid, limit_s=20.0):
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} is still there after {limit_s} s")


def test_a_script_needs_no_main_guard_and_leaves_nothing_behind(model_folder):
    done = subprocess.run(
        [sys.executable, "-"],
        input=script(model_folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pid, reason = done.stdout.split()
    assert reason == "length"
    wait_until_gone(int(pid))


def parent_of(pid):
    done = subprocess.run(
        ["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.parametrize("prompt", ["'abc'", f"[{HANGS}, 5]"], ids=["idle", "within a step"])
def test_a_killed_front_end_takes_its_engine_along(model_folder, prompt):
    parent = subprocess.Popen(
        [sys.executable, "-c", script(model_folder, prompt, step_ms=1000)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        fork_server = parent_of(pid)
        parent.send_signal(signal.SIGKILL)
    wait_until_gone(pid)
    if fork_server != parent.pid:
        wait_until_gone(fork_server)


def test_ctrl_c_does_not_reach_the_engine_first(model_folder):
    """SIGINT goes to the whole process group; only the front end may act on it."""
    parent = subprocess.Popen(
        [sys.executable, "-c", script(model_folder, step_ms=200)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.killpg(parent.pid, signal.SIGINT)
    _, errors = parent.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert "EngineDeadError" not in errors
    wait_until_gone(pid)


def test_the_next_engine_computes_as_the_first_one_found_best():
    """Each start measures the machine anew, and might choose otherwise in mid-answer."""
    engines = Engines(fake_worker(), EngineConfig(model=ModelOptions(folder="", max_model_len=64)))
    try:
        first = engines.start()
        ready = first.wait_until_ready(lambda name, seconds: None)
        engines.settle(ready)
        first.kill()
        second = engines.start()
        assert second.wait_until_ready(lambda name, seconds: None) == ready
        assert ready.compute_plan is not None
        assert second.pid != first.pid
        second.stop()
    finally:
        engines.close()
