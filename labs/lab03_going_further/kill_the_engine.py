"""Kill the engine's process while it answers six requests; look what becomes of them.

python kill_the_engine.py              nothing to write here: run it
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # labkit is there, or beside this file

from labkit import backend

SUBJECTS = ("a coroutine", "a decorator", "PEP 8", "PEP 257", "a generator", "continuous batching")
PARAMS = backend.SamplingParams(temperature=0.0, max_tokens=96)
WIDTH = 40


async def answer_all(engine: backend.AsyncLLMEngine, kill_after: int | None) -> list[str]:
    """Stream all six answers; kill the engine when every one of them has so many tokens."""
    num_tokens = [0] * len(SUBJECTS)
    killed_at = [0] * len(SUBJECTS)

    async def answer(place: int, subject: str) -> str:
        nonlocal killed_at, kill_after
        text = ""
        prompt = backend.ask(f"What is {subject}?")
        async for output in engine.generate(prompt, PARAMS, f"req-{place}"):
            num_tokens[place] = len(output.outputs[0].token_ids)
            text = output.outputs[0].text
            if kill_after is not None and min(num_tokens) >= kill_after:
                print(f"kill -9 {engine.engine_pid}, the engine's process, in mid-stream")
                os.kill(engine.engine_pid, signal.SIGKILL)
                killed_at, kill_after = list(num_tokens), None
        return text

    texts = await asyncio.gather(*(answer(*numbered) for numbered in enumerate(SUBJECTS)))
    for subject, before, total in zip(SUBJECTS, killed_at, num_tokens, strict=True):
        old = WIDTH * before // total
        bar = "=" * old + "|" * (old > 0) + "#" * (WIDTH - old)
        print(f"  {subject:<20} {bar} {total} tokens")
    return texts


async def main() -> None:
    """Answer once undisturbed and once with a murder; compare."""
    args = backend.AsyncEngineArgs(model=backend.DEFAULT_MODEL)
    engine = backend.AsyncLLMEngine.from_engine_args(args)
    first_pid = engine.engine_pid
    try:
        print("Undisturbed:")
        undisturbed = await answer_all(engine, None)
        print("\nOnce more, from the same engine:")
        disturbed = await answer_all(engine, 16)
        print("  (= before the kill, # after it)\n")
        print(f"Another process has taken over: {engine.engine_pid not in (first_pid, None)}")
        num_equal = sum(one == two for one, two in zip(undisturbed, disturbed, strict=True))
        print(f"Answers equal to the undisturbed ones: {num_equal} of {len(SUBJECTS)}")
    finally:
        await backend.close(engine)


if __name__ == "__main__":
    if backend.BACKEND != "native":
        sys.exit("This is for Wheelpit's engine, which survives its process: unset LAB_BACKEND.")
    asyncio.run(main())
