"""The real model through every door: offline, async, over HTTP, and a script made for vLLM."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import openai
import pytest

from wheelpit import LLM, AsyncEngineArgs, AsyncLLMEngine, SamplingParams

QUESTION = "What is continuous batching?"
GREEDY = {"temperature": 0.0, "max_tokens": 32, "seed": 0}
SETTINGS = {"dtype": "float32", "max_model_len": 512, "kv_cache_memory_bytes": 2**27}

VLLM_SCRIPT = """
import asyncio
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.engine.async_llm_engine import AsyncLLMEngine
from vllm.sampling_params import RequestOutputKind
from vllm.utils import random_uuid

engine_args = AsyncEngineArgs(
    gpu_memory_utilization=0.5, enforce_eager=True, tensor_parallel_size=1, max_num_seqs=8,
    max_model_len=512, kv_cache_memory_bytes=2**27,
)
engine = AsyncLLMEngine.from_engine_args(engine_args)

async def stream(prompt):
    params = SamplingParams(temperature=0.8, top_p=0.95, seed=42, max_tokens=20,
                            output_kind=RequestOutputKind.DELTA)
    text = ""
    async for output in engine.generate(
        request_id=random_uuid(), prompt=prompt, sampling_params=params
    ):
        for completion in output.outputs:
            text += completion.text
        if output.finished:
            return text

async def main():
    texts = await asyncio.gather(*(stream(p) for p in ["asyncio is", "A coroutine", "asyncio is"]))
    assert texts[0] == texts[2], texts
    print("TEXTS", len(texts), all(texts))

asyncio.run(main())
engine.shutdown()
"""


@pytest.fixture(scope="module")
def offline() -> tuple[str, list[int]]:
    """What `LLM` answers to the question: the prompt as the template renders it, and the ids."""
    llm = LLM("builtin", **SETTINGS)
    (output,) = llm.chat([{"role": "user", "content": QUESTION}], SamplingParams(**GREEDY))
    assert output.prompt is not None
    return output.prompt, list(output.outputs[0].token_ids)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of its own process on a free port."""
    command = [sys.executable, "-m", "wheelpit", "serve", "--host", "127.0.0.1", "--port", "0"]
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    server = subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with server:
        assert server.stdout is not None
        printed = ""
        for line in server.stdout:
            printed += line
            if found := re.search(r"Ready in .*(http://[\d.:]+)/v1", line):
                yield found.group(1)
                break
        else:
            pytest.fail(f"the server did not start:\n{printed}")
        server.send_signal(signal.SIGTERM)
        server.stdout.read()
    assert server.returncode == 0


def test_the_answer_is_on_topic(offline):
    from wheelpit.models.source import resolve_model
    from wheelpit.text.tokenizer import Tokenizer

    text = Tokenizer.from_folder(resolve_model("builtin")).decode(offline[1])
    assert "batch" in text
    assert "request" in text


def test_the_online_engine_answers_like_the_offline_one_alone_and_in_company(offline):
    prompt, expected = offline

    async def collect(engine: AsyncLLMEngine, text: str, name: str) -> list[int]:
        outputs = [o async for o in engine.generate(text, SamplingParams(**GREEDY), name)]
        return list(outputs[-1].outputs[0].token_ids)

    async def main() -> None:
        engine = AsyncLLMEngine.from_engine_args(AsyncEngineArgs(**SETTINGS))
        try:
            assert await collect(engine, prompt, "alone") == expected
            others = [collect(engine, f"Question {i}: {prompt}", str(i)) for i in range(9)]
            answers = await asyncio.gather(collect(engine, prompt, "first"), *others)
            assert answers[0] == expected
        finally:
            engine.shutdown()

    asyncio.run(main())


def test_the_openai_client_gets_the_same_answer_whole_and_streamed(offline, url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    model = client.models.list().data[0].id
    messages = [{"role": "user", "content": QUESTION}]
    options = {**GREEDY, "extra_body": {"return_token_ids": True, "repetition_penalty": 1.0}}
    whole = client.chat.completions.create(model=model, messages=messages, **options)
    assert whole.choices[0].token_ids == offline[1]
    assert whole.usage.completion_tokens == len(offline[1])
    text, token_ids, num_chunks = "", [], 0
    for chunk in client.chat.completions.create(
        model=model, messages=messages, stream=True, **options
    ):
        num_chunks += 1
        text += chunk.choices[0].delta.content or ""
        token_ids += getattr(chunk.choices[0], "token_ids", None) or []
    assert token_ids == offline[1]
    assert text == whole.choices[0].message.content
    assert num_chunks > 10


def test_a_script_for_vllm_runs_after_changing_its_imports(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(VLLM_SCRIPT.replace("from vllm", "from wheelpit"))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "TEXTS 3 True" in done.stdout
