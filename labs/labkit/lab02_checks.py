"""What Lab 02's tests look at: who returned what, and which mistake that tells of.

Called from the coroutines that the tests run; all raise Failure with a code of hints.toml.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from labkit import backend
from labkit.feedback import Failure, Shown, clip, texts_of, timeline
from labkit.lab import Lab
from labkit.probe import Probe
from labkit.script import Script
from labkit.scripted import EngineFault, Say, Step
from labkit.stand_ins import Record, Stuck, with_stopped_clock

PARAMS = backend.SamplingParams(temperature=0.0, max_tokens=24)

# --- TODO 1


def create(lab: Lab, *arguments: Any) -> Any:
    """Call create_async_engine of a fresh copy of the file, whose engine classes only record."""

    async def made() -> Any:
        make = lab.learner.function("create_async_engine", lab.learner.copy())
        engine = make(*arguments)
        if not inspect.isawaitable(engine):
            raise Failure("L2-1-NOTASYNC", {"you returned": engine})
        return await engine

    return lab.run(made())


def check_engine(record: Record, engine: Any) -> None:
    """Is it the one engine that from_engine_args gave?"""
    shown = {"you returned": engine}
    if any(engine is each for each in record.offline) or (record.offline and not record.calls):
        raise Failure("L2-1-OFFLINE", shown)
    if isinstance(engine, backend.AsyncEngineArgs):
        raise Failure("L2-1-ARGS", shown)
    if isinstance(engine, type):
        raise Failure("L2-1-CLASS", shown)
    if inspect.ismethod(engine):
        raise Failure("L2-1-METHOD", shown)
    if not record.calls:
        raise Failure("L2-1-NOCALL", shown)
    if engine is None:
        raise Failure("L2-1-NONE", shown)
    if len(record.calls) > 1:
        raise Failure("L2-1-TWICE", num=len(record.calls))
    if engine is not record.engines[0]:
        raise Failure("L2-1-OTHER", shown)
    if engine.num_started:
        raise Failure("L2-1-REQUEST")


def check_settings(record: Record, place: int, *wanted: Any) -> None:
    """Did all three arguments arrive? Only these attributes are looked at; others are free."""
    arguments, named = record.calls[place]
    settings = [*arguments, *named.values()]
    if len(settings) < 1 or not hasattr(settings[0], "gpu_memory_utilization"):
        raise Failure("L2-1-NOTARGS", {"it got": settings[0] if settings else named})
    names = ("model", "tensor_parallel_size", "gpu_memory_utilization")
    for name, want in zip(names, wanted, strict=True):
        got = getattr(settings[0], name)
        if got != want:
            asked, got = f"{name}={want!r}", f"{name}={got!r}"
            raise Failure("L2-1-CONSTANT", name=name, asked=asked, got=got)


# --- TODO 2


def num_distinct_without_clock(lab: Lab) -> int:
    """Count the different ids among fifty, made while the clock stands still."""
    return len(set(_ids_without_clock(lab, 50)))


def code_of_repeats(num_distinct: int) -> str:
    """Say why ids repeat, by how many of fifty differ while the clock stands still.

    Of four random digits at least forty do, nearly always; of a clock's readings one.
    """
    return "L2-2-CLOCK" if num_distinct < 25 else "L2-2-RANDOM"


def is_id_the_time(lab: Lab) -> bool:
    """Do ids differ because the clock stands elsewhere? (A fresh copy of the file each time.)"""
    return _ids_without_clock(lab, 1) != _ids_without_clock(lab, 1, ahead_s=12_345.678)


def _ids_without_clock(lab: Lab, number: int, ahead_s: float = 0.0) -> list[Any]:
    try:
        return with_stopped_clock(
            lab.learner,
            "generate_request_id",
            lambda make: [make() for _ in range(number)],
            limit_s=1.5,
            ahead_s=ahead_s,
        )
    except Stuck:
        raise Failure("L2-2-SPIN") from None


# --- TODO 3


async def submitted(
    lab: Lab, probe: Probe, prompt: str, params: Any, request_id: str
) -> AsyncGenerator[Any, None]:
    """Call submit_request and make sure that it gave a stream."""
    stream = lab.function("submit_request")(probe, prompt, params, request_id)
    if inspect.iscoroutine(stream):
        inner = await stream
        code = "L2-3-ASYNCDEF" if hasattr(inner, "__aiter__") else "L2-3-NOTSTREAM"
        raise Failure(code, {"you returned": stream})
    shown = {"you returned": stream}
    if stream is None:
        raise Failure("L2-3-NONE" if probe.calls else "L2-3-NOCALL", shown)
    if not hasattr(stream, "__aiter__"):
        raise Failure("L2-3-NOTSTREAM", shown)
    return stream


def check_call(probe: Probe, prompt: str, params: Any, request_id: str) -> None:
    """Was generate called once, with these values?"""
    if not probe.calls:
        raise Failure("L2-3-NOCALL")
    if len(probe.calls) > 1:
        raise Failure("L2-3-TWICE", num=len(probe.calls))
    call = probe.calls[0]
    got = (call.prompt, call.sampling_params, call.request_id)
    wanted = (prompt, params, request_id)
    shown = {
        "generate got": Shown(
            f"prompt={clip(call.prompt, 22)}, request_id={clip(call.request_id, 22)}"
        )
    }
    if got != wanted and all(any(each is want for each in got) for want in wanted):
        raise Failure("L2-3-ORDER", shown)
    if call.request_id != request_id:
        shown = {"engine got": call.request_id, "caller asked for": request_id}
        raise Failure("L2-3-ID", shown)
    if call.prompt != prompt:
        raise Failure("L2-3-PROMPT", {"engine got": call.prompt, "caller's prompt": prompt})
    if call.sampling_params is not params:
        raise Failure("L2-3-PARAMS")


def check_passed_on(seen: list[Any], outputs: list[Any]) -> None:
    """Did the stream give the engine's own outputs, all of them?"""
    if all(any(each is output for output in outputs) for each in seen):
        if len(seen) < len(outputs):
            shown = {"engine streamed": f"{len(outputs)} outputs", "your stream": f"{len(seen)}"}
            raise Failure("L2-3-LOST", shown)
        return
    raise Failure("L2-3-CHANGED", {"your stream": seen[0]})


# --- TODO 4a and 4b


def words(*parts: str) -> list[Step]:
    return [Say(part) for part in parts]


async def collect(lab: Lab, probe: Probe) -> Any:
    """Give collect_output a stream of this engine."""
    stream = probe.generate("Hello", PARAMS, "req-1")
    made = lab.function("collect_output")(stream)
    if inspect.isasyncgen(made):
        raise Failure("L2-4A-YIELD", {"you returned": made})
    if not inspect.isawaitable(made):
        raise Failure("L2-4A-NOTASYNC", {"you returned": made})
    return await made


def texts_so_far(script: Sequence[Step]) -> list[str]:
    """Return the text of each output that a script gives."""
    return list(itertools.accumulate(step.text for step in script if isinstance(step, Say)))


def check_whole_text(returned: Any, probe: Probe, script: Sequence[Step]) -> None:
    """Is it the last output's text? If not, what is it?"""
    texts = texts_so_far(script)
    num_read = len(probe.calls[0].outputs)
    shown = {"engine streams": texts_of(texts), "you returned": returned, "wanted": texts[-1]}
    if num_read == 0:
        raise Failure("L2-4A-UNREAD", shown)
    if returned is None:
        raise Failure("L2-4A-NONE", shown)
    if hasattr(returned, "outputs") or hasattr(returned, "token_ids"):
        shown["you returned"] = Shown(f"a {type(returned).__name__}")
        raise Failure("L2-4A-OBJECT", shown)
    if isinstance(returned, list | tuple):
        raise Failure("L2-4A-LIST", shown)
    if returned == texts[-1]:
        return
    if returned == "".join(texts[:num_read]) and num_read > 1:
        raise Failure("L2-4A-ADDED", shown)
    if returned in texts:
        raise Failure("L2-4A-FIRST", shown)
    if isinstance(returned, str) and "".join(returned.split()) == "".join(texts[-1].split()):
        raise Failure("L2-4A-CHANGED", shown)
    raise Failure("L2-4A-WRONG", shown)


@contextlib.asynccontextmanager
async def streamed(
    lab: Lab, probe: Probe, prompt: str = "Hello", params: Any = PARAMS
) -> AsyncGenerator[AsyncGenerator[str, None], None]:
    """Call stream_text and make sure that it gave a stream, which is closed in the end."""
    pieces = lab.function("stream_text")(probe, prompt, params, "req-1")
    if inspect.iscoroutine(pieces):
        await pieces
        raise Failure("L2-4B-COROUTINE", {"you returned": pieces})
    if not hasattr(pieces, "__anext__"):
        raise Failure("L2-4B-NOTSTREAM", {"you returned": pieces})
    try:
        yield pieces
    finally:
        if hasattr(pieces, "aclose"):
            await pieces.aclose()


async def joined(pieces: AsyncGenerator[str, None]) -> str:
    return "".join([piece async for piece in pieces])


def check_pieces(seen: list[Any], probe: Probe) -> None:
    """Do the pieces join up to the text?"""
    if not probe.calls:
        raise Failure("L2-4B-NOREQUEST", {"you yielded": seen})
    call = probe.calls[0]
    if (call.prompt, call.request_id) != ("Hello", "req-1"):
        got = Shown(f"prompt={clip(call.prompt, 22)}, request_id={clip(call.request_id, 22)}")
        raise Failure("L2-4B-VALUES", {"engine got": got})
    texts = call.texts
    if getattr(getattr(call.sampling_params, "output_kind", None), "name", "") == "DELTA":
        texts = ["".join(texts[: place + 1]) for place in range(len(texts))]
    shown = {"engine streamed": texts_of(texts)}
    if not all(isinstance(piece, str) for piece in seen):
        kinds = {type(piece).__name__ for piece in seen}
        raise Failure("L2-4B-OBJECT", {**shown, "you yielded": Shown(", ".join(sorted(kinds)))})
    whole = texts[-1] if texts else ""
    if "".join(seen) == whole:
        return
    shown["you yielded"] = texts_of(seen)
    if seen and seen[-1] == whole and len(seen) > 1:
        raise Failure("L2-4B-WHOLE", shown)
    shown["joined"] = "".join(seen)
    shown["wanted"] = whole
    raise Failure("L2-4B-CUT" if "haha" in whole else "L2-4B-LOST", shown)


# --- TODO 5


async def together(lab: Lab, probe: Any, prompts: list[str]) -> Any:
    """Call generate_concurrent_requests and await what it gives."""
    made = lab.function("generate_concurrent_requests")(probe, prompts, PARAMS)
    if inspect.isasyncgen(made):
        raise Failure("L2-5-YIELD", {"you returned": made})
    if isinstance(made, asyncio.Future):
        await asyncio.wait([made])
        raise Failure("L2-5-GATHER", {"you returned": made})
    if not inspect.isawaitable(made):
        raise Failure("L2-5-NOTASYNC", {"you returned": made})
    return await made


def ids_of(probe: Probe, prompts: list[str]) -> list[Any]:
    """Return the ids that these prompts were submitted with, in the prompts' order."""
    left = list(probe.calls)
    ids = []
    for prompt in prompts:
        call = next((call for call in left if call.prompt == prompt), None)
        if call is not None:
            left.remove(call)
            ids.append(call.request_id)
    return ids


def check_flight(probe: Probe, prompts: list[str]) -> None:
    """Were all of them in flight together, on one loop, each with its own id?"""
    want = len(prompts)
    drawing = timeline(probe.calls, probe.num_events)
    if len(probe.loops) > 1:
        raise Failure("L2-5-LOOPS", num=len(probe.loops))
    if 0 < len(probe.calls) < want:
        shown = {"prompts": prompts, "engine got": [call.prompt for call in probe.calls]}
        code = "L2-5-DEDUP" if len(set(prompts)) < want else "L2-5-NUMBER"
        raise Failure(code, shown, want=want, num=len(probe.calls))
    num_ids = len(set(probe.ids))
    if num_ids < len(probe.calls):
        shown = {"ids": texts_of(probe.ids)}
        raise Failure("L2-5-SAMEID", shown, want=want, num=num_ids, s="s" * (num_ids > 1))
    if 0 < probe.peak < want:
        code = "L2-5-SEQUENTIAL" if probe.peak == 1 else "L2-5-FEW"
        raise Failure(code, drawing=drawing, peak=probe.peak, want=want)


def check_results(returned: Any, probe: Probe, prompts: list[str]) -> None:
    """Is it a list of pairs, each prompt's id with its text, in the order of the prompts?"""
    shown = {"you returned": returned}
    if returned is None:
        raise Failure("L2-5-NONE", shown)
    if isinstance(returned, asyncio.Future) and not isinstance(returned, asyncio.Task):
        raise Failure("L2-5-GATHER", shown)
    if not isinstance(returned, list | tuple):
        raise Failure("L2-5-SHAPE", {**shown, "wanted": Shown("[('req-1', 'text'), ...]")})
    waiting = [part for part in flat(returned) if inspect.isawaitable(part)]
    for part in waiting:
        dispose(part)
    if waiting:
        raise Failure("L2-5-TASKS", shown, kind=f"a {type(waiting[0]).__name__}")
    if prompts and not probe.calls:
        raise Failure("L2-5-NOREQUEST", shown)
    if len(returned) != len(prompts):
        raise Failure("L2-5-NUMBER", shown, want=len(prompts), num=len(returned))
    wanted = [
        (id_, f"Answer {prompt}")
        for id_, prompt in zip(ids_of(probe, prompts), prompts, strict=False)
    ]
    for pair in returned:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise Failure("L2-5-SHAPE", {**shown, "wanted": wanted[:1]})
    pairs = [tuple(pair) for pair in returned]
    if len(set(prompts)) < len(prompts) and len({pair[0] for pair in pairs}) < len(pairs):
        raise Failure("L2-5-DEDUP", {"prompts": prompts, **shown})
    if sorted(pairs, key=repr) == sorted(wanted, key=repr):
        # The same prompt twice may swap its two ids: nobody can tell their texts apart.
        if [text for _, text in pairs] != [text for _, text in wanted]:
            raise Failure("L2-5-ORDER", {**shown, "wanted": wanted})
        return
    shown["wanted"] = wanted
    if sorted(pairs, key=repr) == sorted(((b, a) for a, b in wanted), key=repr):
        raise Failure("L2-5-SWAPPED", shown)
    if any(not isinstance(text, str) for _, text in pairs):
        raise Failure("L2-5-TEXT", shown)
    if {text for _, text in pairs} == {text for _, text in wanted}:
        is_known = {id_ for id_, _ in pairs} == {id_ for id_, _ in wanted}
        raise Failure("L2-5-PAIRS" if is_known else "L2-5-IDS", shown)
    raise Failure("L2-5-TEXT", shown)


def flat(results: Any) -> list[Any]:
    """Return the results and, of those that are pairs, their parts."""
    parts = []
    for result in results:
        parts += list(result) if isinstance(result, list | tuple) else [result]
    return parts


# --- errors and cancellation

PASSED = object()
"""The engine's error came through."""


async def expect_fault(awaitable: Any, code: str) -> Any:
    """Return PASSED if the engine's error comes out, alone or in a group, else the result."""
    try:
        return await awaitable
    except EngineFault:
        return PASSED
    except BaseExceptionGroup as group:
        if group.subgroup(EngineFault) is not None:
            return PASSED
        raise
    except Failure:
        raise
    except Exception as error:
        if "no memory" in f"{error}{error.__cause__}{error.__context__}":
            raise Failure(code, want="EngineFault", got=type(error).__name__) from error
        raise


async def cancelled(task: asyncio.Task[Any], is_time: Any) -> bool:
    """Cancel the task when it is time; tell whether it ended as cancelled."""
    while not is_time() and not task.done():
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    if task.cancelled():
        return True
    error = task.exception()
    if error is not None:
        raise error
    return False


def dispose(awaitable: Any) -> None:
    """Close a coroutine that nobody will await, so that Python does not complain as well."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()


# --- the real engine and the script


def live_engine(lab: Lab) -> Any:
    """Start the session's one engine with TODO 1, and the script beside it: both take seconds."""
    script(lab)
    if "engine" not in lab.kept:

        async def start() -> Any:
            return await lab.function("create_async_engine")()

        engine = lab.run(start(), limit_s=backend.START_LIMIT_S)
        lab.kept["engine"] = engine
        lab.at_exit(lambda: lab.run(backend.close(engine), limit_s=10.0))
    return lab.kept["engine"]


def script(lab: Lab) -> Script:
    """Start `python starter.py` in the background, once."""
    if "script" not in lab.kept:
        lab.kept["script"] = Script(lab.learner.path, backend.START_LIMIT_S)
        lab.at_exit(lab.kept["script"].kill)
    return lab.kept["script"]
