"""What importing costs: counted in modules, which does not depend on the machine's mood."""

import subprocess
import sys

import pytest


def modules_after(code: str) -> set[str]:
    """Return what a fresh interpreter has imported after running `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


HEAVY = {"torch", "numpy", "transformers", "triton", "huggingface_hub", "safetensors"}


def test_importing_wheelpit_imports_hardly_anything():
    modules = modules_after("import wheelpit")
    assert not modules & (HEAVY | {"asyncio", "fastapi", "tokenizers", "jinja2", "rich"})
    assert len(modules - modules_after("pass")) < 40


@pytest.mark.parametrize(
    "names", ["SamplingParams, RequestOutput", "AsyncLLMEngine, AsyncEngineArgs", "LLM"]
)
def test_the_public_names_bring_no_torch(names):
    assert not modules_after(f"from wheelpit import {names}") & HEAVY


def test_the_server_brings_no_torch():
    assert not modules_after("from wheelpit.server.app import create_app") & HEAVY
    assert not modules_after("import wheelpit.server.run") & HEAVY


def test_the_engine_core_brings_neither_torch_nor_asyncio():
    modules = modules_after("import wheelpit.engine.core, wheelpit.scheduling.scheduler")
    assert not modules & (HEAVY | {"asyncio"})


def test_text_brings_nothing_but_tokenizers():
    modules = modules_after("import wheelpit.text.output_text, wheelpit.text.chat_template")
    assert not modules & (HEAVY | {"jinja2", "fastapi"})
