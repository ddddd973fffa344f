"""What if a request arrives while a batch runs? Offline, then online: the same five requests.

python late_arrival.py                 nothing to write here: run it, look at the last row of each
"""

import asyncio
import queue
import sys
import threading
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # labkit is there, or beside this file

from labkit import backend

BATCH = [f"Tell me about PEP {number}." for number in (8, 20, 257, 492)]
LATE = "What is a coroutine?"
WARM_UP = "The first answer of a process is slow."
ARRIVES_S = 0.2
NUM_TOKENS = {"batch": 200, "late": 40}
WIDTH = 48


def params(who: str) -> backend.SamplingParams:
    """Return parameters that make every answer as long as we want it."""
    return backend.SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS[who], ignore_eos=True)


def offline() -> dict[str, tuple[float, float]]:
    """Run the batch with LLM; the late request finds it busy. Return when each began and ended."""
    llm = backend.LLM(model=backend.DEFAULT_MODEL)
    llm.generate(WARM_UP, params("late"), use_tqdm=False)
    arrivals: queue.Queue[str] = queue.Queue()
    threading.Timer(ARRIVES_S, arrivals.put, [LATE]).start()
    began = time.perf_counter()
    prompts = [backend.ask(question) for question in BATCH]
    llm.generate(prompts, params("batch"), use_tqdm=False)
    batch_s = time.perf_counter() - began
    # Only now can this program look whether anybody came meanwhile.
    llm.generate([backend.ask(arrivals.get())], params("late"), use_tqdm=False)
    return {"batch": (0.0, batch_s), "late": (batch_s, time.perf_counter() - began)}


async def online() -> dict[str, tuple[float, float]]:
    """Run the same with AsyncLLMEngine, where the late request joins. Return the same."""
    args = backend.AsyncEngineArgs(model=backend.DEFAULT_MODEL)
    engine = backend.AsyncLLMEngine.from_engine_args(args)
    began = 0.0

    async def answer(question: str, who: str, request_id: str) -> tuple[float, float]:
        """Return when the first token came, and the last."""
        started_s = None
        async for _ in engine.generate(backend.ask(question), params(who), request_id):
            started_s = started_s or time.perf_counter() - began
        return started_s or 0.0, time.perf_counter() - began

    try:
        await answer(WARM_UP, "late", "warm-up")
        began = time.perf_counter()
        batch = [
            asyncio.create_task(answer(question, "batch", f"batch-{number}"))
            for number, question in enumerate(BATCH)
        ]
        await asyncio.sleep(ARRIVES_S)
        late = await answer(LATE, "late", "late")
        ends = [ended_s for _, ended_s in await asyncio.gather(*batch)]
    finally:
        await backend.close(engine)
    return {"batch": (0.0, max(ends)), "late": late}


def show(title: str, times: dict[str, tuple[float, float]], total_s: float) -> None:
    """Draw who waited and who was answered when."""
    print(f"\n{title}")
    for who, (began_s, ended_s) in times.items():
        arrived, began, ended = (
            round(WIDTH * second / total_s)
            for second in (ARRIVES_S if who == "late" else 0.0, began_s, ended_s)
        )
        row = " " * arrived + "." * (began - arrived) + "#" * max(1, ended - began)
        note = f"waited {began_s - ARRIVES_S:.2f} s" if who == "late" else f"{len(BATCH)} requests"
        print(f"  {who:<6}|{row:<{WIDTH + 1}}| {note}")


def main() -> None:
    """Run both and draw them to the same scale."""
    print(f"A batch of {len(BATCH)} runs; after {ARRIVES_S} s one more request arrives.")
    print("(. = waits, # = is being answered)")
    offline_times = offline()
    online_times = asyncio.run(online())
    total_s = max(end for times in (offline_times, online_times) for _, end in times.values())
    show("Offline, LLM: not even looked at until the whole batch is done.", offline_times, total_s)
    show("Online, AsyncLLMEngine: joins the running batch at once.", online_times, total_s)


if __name__ == "__main__":
    main()
