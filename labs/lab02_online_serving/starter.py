"""Lab 02: Online Serving with AsyncEngine. Write the functions marked TODO, one after the other.

python starter.py                      run what you have
pytest test_lab.py -v                  grade it
pytest test_lab.py -v -k todo1         grade one TODO
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # labkit is there, or beside this file

from labkit.backend import (
    DEFAULT_MODEL,
    AsyncEngineArgs,
    AsyncLLMEngine,
    RequestOutput,
    SamplingParams,
    ask,
    stop_at_open_todo,
)


async def create_async_engine(
    model_name: str = DEFAULT_MODEL,
    tensor_parallel_size: int = 1,
    gpu_memory_utilization: float = 0.9,
) -> AsyncLLMEngine:
    """TODO 1: start an engine for this model and return it.

    Put all three arguments into AsyncEngineArgs (its names for them are `model`,
    `tensor_parallel_size` and `gpu_memory_utilization`), and give that object to
    AsyncLLMEngine.from_engine_args. That is an ordinary call: there is nothing to await. It takes
    a few seconds, because it loads the model. Each call makes a new engine.
    """
    raise NotImplementedError("TODO 1: start an engine and return it")


def generate_request_id(prefix: str = "req") -> str:
    """TODO 2: return an id that no other request of this program has.

    It is the prefix, a dash and something of your choice without spaces, brackets or parentheses:
    "req-1234". It must never come twice, however fast it is asked for: a clock alone is not enough.
    """
    raise NotImplementedError("TODO 2: return an id that no other request has")


def submit_request(
    engine: AsyncLLMEngine,
    prompt: str,
    sampling_params: SamplingParams,
    request_id: str,
) -> AsyncIterator[RequestOutput]:
    """TODO 3: call the engine's generate() with exactly these values and return its stream.

    Return it unread. This is a plain `def`: generate() gives an async generator, which is not
    awaited but iterated, and nothing at all happens before somebody does. A request that nobody
    iterates never starts.
    """
    raise NotImplementedError("TODO 3: call engine.generate() and return its stream")


async def collect_output(stream: AsyncIterator[RequestOutput]) -> str:
    """TODO 4a: read the stream to its end and return the whole text.

    Each output has the text so far in `output.outputs[0].text`: "Async", then "Async io", then
    "Async io is". So the last output has the whole text, to be returned unchanged; if there was no
    output, return "". Errors and cancellation are not yours to handle: let them pass.
    """
    raise NotImplementedError("TODO 4a: read the stream and return the whole text")


async def stream_text(
    engine: AsyncLLMEngine,
    prompt: str,
    sampling_params: SamplingParams,
    request_id: str,
) -> AsyncIterator[str]:
    """TODO 4b: submit a request and yield its text in pieces, each as soon as it is there.

    A piece is only what is new since the one before: "Async", " io", " is". Joined they are what
    collect_output returns. When whoever reads them stops early, the request must end as well.
    """
    raise NotImplementedError("TODO 4b: yield the text in pieces")
    yield ""  # an async generator is an `async def` with a yield: yours replaces this one


async def generate_single_request(
    engine: AsyncLLMEngine,
    prompt: str,
    sampling_params: SamplingParams,
    request_id: str,
) -> str:
    """Submit one request and return its whole text (given: your TODO 4a over your TODO 3)."""
    return await collect_output(submit_request(engine, prompt, sampling_params, request_id))


async def generate_concurrent_requests(
    engine: AsyncLLMEngine,
    prompts: list[str],
    sampling_params: SamplingParams,
) -> list[tuple[str, str]]:
    """TODO 5: send all prompts at the same time; return (request_id, text) for each.

    Each prompt is a request with a fresh id of its own, also when two prompts are the same. All
    are in flight together (asyncio.gather); the results come in the order of the prompts. The
    first error is raised; when this function is cancelled, no request goes on. No prompts give [].
    """
    raise NotImplementedError("TODO 5: send all prompts at the same time")


def preview(text: str) -> str:
    """Return the beginning of a text on one line (given)."""
    return f"{' '.join(text.split())[:60].rstrip(' .')}..."


async def main() -> None:
    """Send one request, then three at once, and show what came back (given)."""
    print("=== vLLM Async Online Serving Lab ===\n")
    print("Initializing AsyncLLMEngine...")
    engine = await create_async_engine()
    try:
        print("Engine initialized successfully!\n")
        sampling_params = SamplingParams(temperature=0.0, max_tokens=64)

        print("Processing single request...")
        question = "Explain async programming in Python"
        request_id = generate_request_id()
        print(f"Request ID: {request_id}")
        print(f"Prompt: {question}")
        text = await generate_single_request(engine, ask(question), sampling_params, request_id)
        print(f"Generated: {preview(text)}\n")

        print("Processing concurrent requests...")
        questions = [
            "What does asyncio.gather do?",
            "What is continuous batching?",
            "What is a decorator?",
        ]
        began = time.perf_counter()
        results = await generate_concurrent_requests(
            engine, [ask(question) for question in questions], sampling_params
        )
        elapsed = max(time.perf_counter() - began, 1e-9)
        for number, (request_id, _) in enumerate(results, start=1):
            print(f"Request {number} ({request_id}): Complete")
        print(f"\nAll {len(results)} requests completed in {elapsed:.2f} seconds")
        print(f"Throughput: {len(results) / elapsed:.2f} requests/second")
    finally:
        engine.shutdown()


async def answer(question: str) -> None:
    """Ask one question and show the answer while it is being generated (given; TODO 4b at work)."""
    engine = await create_async_engine()
    try:
        sampling_params = SamplingParams(temperature=0.0, max_tokens=200)
        request_id = generate_request_id()
        async for piece in stream_text(engine, ask(question), sampling_params, request_id):
            print(piece, end="", flush=True)
        print()
    finally:
        engine.shutdown()


if __name__ == "__main__":
    with stop_at_open_todo():
        # python starter.py "What is a coroutine?" answers that; without a question, main() runs.
        asyncio.run(answer(" ".join(sys.argv[1:])) if sys.argv[1:] else main())
