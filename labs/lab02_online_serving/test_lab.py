"""Grades Lab 02: `pytest test_lab.py -v`, or one TODO: `pytest test_lab.py -v -k todo4a`.

Each class is a stage. TODO 2 to 5 are graded on an engine that follows a script, so that the tests
decide what happens when; the last two classes use the real one. The sentences you read when a test
fails are in labkit/hints.toml. You need not read this file to do the lab.
"""

import asyncio
import contextlib
import inspect
import re
from collections.abc import Sequence

from labkit import backend
from labkit.feedback import Failure, Shown, texts_of
from labkit.lab import Lab
from labkit.lab02_checks import (
    PARAMS,
    PASSED,
    cancelled,
    check_call,
    check_engine,
    check_flight,
    check_passed_on,
    check_pieces,
    check_results,
    check_settings,
    check_whole_text,
    code_of_repeats,
    collect,
    create,
    dispose,
    expect_fault,
    ids_of,
    is_id_the_time,
    joined,
    live_engine,
    num_distinct_without_clock,
    script,
    streamed,
    submitted,
    together,
    words,
)
from labkit.probe import Probe
from labkit.scripted import EngineFault, Fail, Hang, Pause, Say, ScriptedEngine, Step, Wait
from labkit.stand_ins import recorded_engines

LAB = "lab02"


class TestTodo1CreateEngine:
    todo = "1"

    def test_returns_the_engine_that_from_engine_args_made(self, lab: Lab) -> None:
        with recorded_engines() as record:
            engine = create(lab, "lab/model-a", 2, 0.45)
            check_engine(record, engine)
            check_settings(record, 0, "lab/model-a", 2, 0.45)

    def test_uses_the_defaults_of_its_parameters(self, lab: Lab) -> None:
        with recorded_engines() as record:
            create(lab)
            check_settings(record, 0, backend.DEFAULT_MODEL, 1, 0.9)

    def test_makes_a_new_engine_for_each_call(self, lab: Lab) -> None:
        async def grade() -> None:
            make = lab.learner.function("create_async_engine", lab.learner.copy())
            first, second = await make("lab/model-a"), await make("lab/model-b")
            if first is second or len(record.engines) < 2:
                raise Failure("L2-1-CACHED")
            check_settings(record, 1, "lab/model-b", 1, 0.9)

        with recorded_engines() as record:
            lab.run(grade())


class TestTodo2RequestId:
    todo = "2"

    def test_is_the_prefix_a_dash_and_something(self, lab: Lab) -> None:
        make = lab.function("generate_request_id")
        for prefix, arguments in (("req", ()), ("chat", ("chat",))):
            made = make(*arguments)
            shown = {f"for prefix {prefix!r}": made}
            if inspect.isawaitable(made):
                dispose(made)
                raise Failure("L2-2-ASYNC", shown)
            if made is None:
                raise Failure("L2-2-NONE", shown)
            if not isinstance(made, str):
                raise Failure("L2-2-TYPE", shown, kind=type(made).__name__)
            if not made.startswith(prefix):
                raise Failure("L2-2-PREFIX", shown, prefix=prefix)
            if not re.fullmatch(r"-[^\s()\[\]{}]+", made.removeprefix(prefix)):
                raise Failure("L2-2-FORMAT", shown)

    def test_never_repeats(self, lab: Lab) -> None:
        make = lab.function("generate_request_id")
        ids = [make() for _ in range(2000)]
        num_repeats = len(ids) - len(set(ids))
        # Eight hex digits repeat once in two thousand runs; they get a second chance.
        if num_repeats == 0 or (num_repeats == 1 and len({make() for _ in range(2000)}) == 2000):
            return
        shown = {"ids": texts_of(ids[:3]), "repeated": f"{num_repeats} of {len(ids)}"}
        if len(set(ids)) == 1 and not is_id_the_time(lab):
            raise Failure("L2-2-SAME", shown)
        code = code_of_repeats(num_distinct_without_clock(lab))
        raise Failure(code, shown, num=num_repeats, total=len(ids))

    def test_does_not_rely_on_the_clock(self, lab: Lab) -> None:
        num_distinct = num_distinct_without_clock(lab)
        if num_distinct < 50:
            shown = {"clock stopped": f"50 calls gave {num_distinct} different ids"}
            raise Failure(code_of_repeats(num_distinct), shown, num=50 - num_distinct, total=50)


class TestTodo3SubmitRequest:
    todo = "3"

    def test_calls_generate_with_exactly_these_values(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": words("Hi", " there")}))
            stream = await submitted(lab, probe, "Hello", PARAMS, "req-7")
            seen = [output async for output in stream]
            check_call(probe, "Hello", PARAMS, "req-7")
            check_passed_on(seen, probe.calls[0].outputs)

        lab.run(grade())

    def test_passes_each_output_on_at_once(self, lab: Lab) -> None:
        async def grade() -> None:
            engine = ScriptedEngine({"Hello": [Say("Hi"), Wait("second"), Say(" there")]})
            stream = await submitted(lab, Probe(engine), "Hello", PARAMS, "req-7")
            await anext(stream.__aiter__())
            engine.open("second")
            async for _ in stream:
                pass

        lab.run(grade(), hang="L2-3-BUFFERED")

    def test_passes_errors_on(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(
                ScriptedEngine({"Hello": [Say("Hi"), Fail(EngineFault("out of memory"))]})
            )
            stream = await submitted(lab, probe, "Hello", PARAMS, "req-7")
            try:
                seen = [output async for output in stream]
            except EngineFault:
                return
            shown = {
                "engine raised": "out of memory",
                "your stream": f"{len(seen)} outputs, no error",
            }
            raise Failure("L2-3-LOST", shown)

        lab.run(grade())


class TestTodo4aCollectOutput:
    todo = "4a"

    def test_returns_the_last_text(self, lab: Lab) -> None:
        self.grade(lab, words("Async", " io", "", " is fun"))

    def test_keeps_spaces_and_line_breaks(self, lab: Lab) -> None:
        self.grade(lab, words("  Async", " io \n", "\n"))

    def test_one_output_is_enough(self, lab: Lab) -> None:
        self.grade(lab, words("Yes."))

    def test_no_output_is_an_empty_text(self, lab: Lab) -> None:
        async def grade() -> None:
            text = await collect(lab, Probe(ScriptedEngine({"Hello": []})))
            if text != "":
                raise Failure("L2-4A-EMPTY", {"you returned": text, "wanted": ""})

        lab.run(grade())

    def test_lets_the_engines_error_pass(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": [Say("Half"), Fail(EngineFault("no memory"))]}))
            returned = await expect_fault(collect(lab, probe), "L2-4A-REPLACED")
            if returned is not PASSED:
                shown = {"engine raised": "EngineFault", "you returned": returned}
                raise Failure("L2-4A-SWALLOWED", shown)

        lab.run(grade())

    def test_ends_when_it_is_cancelled(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": [Say("Half"), Hang()]}))
            task = asyncio.create_task(collect(lab, probe))
            if not await cancelled(task, lambda: bool(probe.calls and probe.calls[0].outputs)):
                raise Failure("L2-4A-CANCEL")
            if not await probe.wait_idle():
                raise Failure("L2-4A-LEAK")

        lab.run(grade(), hang="L2-4A-CANCEL")

    def test_waits_for_a_slow_engine_without_blocking(self, lab: Lab) -> None:
        slow = [step for part in ("A", "B", "C") for step in (Pause(0.02), Say(part))]
        self.grade(lab, slow)

    def grade(self, lab: Lab, script: Sequence[Step]) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": script}))
            returned = await collect(lab, probe)
            check_whole_text(returned, probe, script)
            if not await probe.wait_idle():
                raise Failure("L2-4A-LEAK")

        lab.run(grade())


class TestTodo4bStreamText:
    todo = "4b"

    def test_yields_only_what_is_new(self, lab: Lab) -> None:
        self.grade(lab, words("Async", " io", "", " is fun", ".\n"))

    def test_text_that_repeats_itself(self, lab: Lab) -> None:
        self.grade(lab, words("ha", "ha", "ha", "!", "ha"))

    def test_yields_at_once(self, lab: Lab) -> None:
        async def grade() -> None:
            engine = ScriptedEngine({"Hello": [Say("Hi"), Wait("second"), Say(" there")]})
            async with streamed(lab, Probe(engine)) as pieces:
                with contextlib.suppress(StopAsyncIteration):
                    while not await anext(pieces):
                        pass
                engine.open("second")
                async for _ in pieces:
                    pass

        lab.run(grade(), hang="L2-4B-LATE")

    def test_a_reader_who_leaves_ends_the_request(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": [Say("Hi"), Hang()]}))
            async with streamed(lab, probe) as pieces:
                await anext(pieces)
            del pieces
            if not await probe.wait_idle():
                raise Failure("L2-4B-LEAK")

        lab.run(grade())

    def test_lets_the_engines_error_pass(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": [Say("Half"), Fail(EngineFault("no memory"))]}))
            async with streamed(lab, probe) as pieces:
                returned = await expect_fault(joined(pieces), "L2-4A-REPLACED")
            if returned is not PASSED:
                shown = {"engine raised": "EngineFault", "you yielded": returned}
                raise Failure("L2-4B-SWALLOWED", shown)

        lab.run(grade())

    def grade(self, lab: Lab, script: Sequence[Step]) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": script}))
            async with streamed(lab, probe) as pieces:
                seen = [piece async for piece in pieces]
            check_pieces(seen, probe)
            if not await probe.wait_idle():
                raise Failure("L2-4B-LEAK")

        lab.run(grade())


class TestTodo5Concurrent:
    todo = "5"

    def test_three_requests_are_in_flight_together(self, lab: Lab) -> None:
        self.grade(lab, ["first", "second", "third"])

    def test_one_request(self, lab: Lab) -> None:
        self.grade(lab, ["alone"])

    def test_seven_requests(self, lab: Lab) -> None:
        self.grade(lab, [f"prompt {number}" for number in range(7)])

    def test_the_same_prompt_twice_is_two_requests(self, lab: Lab) -> None:
        self.grade(lab, ["same", "other", "same"])

    def test_no_prompts_give_no_results(self, lab: Lab) -> None:
        async def grade() -> None:
            returned = await together(lab, Probe(ScriptedEngine()), [])
            if not isinstance(returned, list | tuple) or len(returned):
                raise Failure("L2-5-EMPTY", {"you returned": returned, "wanted": []})

        lab.run(grade())

    def test_two_batches_share_no_id(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine())
            await asyncio.gather(together(lab, probe, ["a", "b"]), together(lab, probe, ["c", "d"]))
            if len(set(probe.ids)) < 4:
                raise Failure("L2-5-SHARED", {"ids of 4 requests": texts_of(probe.ids)})

        lab.run(grade())

    def test_the_first_error_is_raised(self, lab: Lab) -> None:
        async def grade() -> None:
            failing = [Say("Half"), Fail(EngineFault("no memory"))]
            probe = Probe(ScriptedEngine({"bad": failing, "slow": [Pause(0.03), Say("late")]}))
            returned = await expect_fault(
                together(lab, probe, ["slow", "bad", "good"]), "L2-5-REPLACED"
            )
            if returned is not PASSED:
                shown = {"engine raised": "EngineFault", "you returned": returned}
                raise Failure("L2-5-SWALLOWED", shown)

        lab.run(grade())

    def test_cancelling_it_leaves_nothing_running(self, lab: Lab) -> None:
        async def grade() -> None:
            endless = [Say("Half"), Hang()]
            probe = Probe(ScriptedEngine({"a": endless, "b": endless, "c": endless}))
            task = asyncio.create_task(together(lab, probe, ["a", "b", "c"]))
            if not await cancelled(task, lambda: probe.num_live == 3):
                raise Failure("L2-5-CANCEL")
            if not await probe.wait_idle():
                raise Failure("L2-5-LEAK", num=probe.num_live)

        lab.run(grade(), hang="L2-5-CANCEL")

    def grade(self, lab: Lab, prompts: list[str]) -> None:
        """Send prompts whose answers are ready in the opposite order: the first is the slowest."""

        async def grade() -> None:
            scripts = {
                prompt: [Say("Answer"), *[Pause(0.005)] * (len(prompts) - place), Say(f" {prompt}")]
                for place, prompt in enumerate(dict.fromkeys(prompts))
            }
            probe = Probe(ScriptedEngine(scripts), barrier=len(prompts))
            returned = await together(lab, probe, prompts)
            check_flight(probe, prompts)
            check_results(returned, probe, prompts)

        lab.run(grade())


class TestLive:
    """Your functions on the real engine, which TODO 1 starts."""

    todo = "live"

    QUESTIONS = ("What is continuous batching?", "What is a decorator?", "What is PEP 492 about?")

    def test_three_requests_at_once(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(engine, barrier=3)
            prompts = [backend.ask(question) for question in self.QUESTIONS]
            lab.kept["texts"] = returned = await together(lab, probe, prompts)
            shown = {"you returned": returned}
            if probe.peak < 3:
                raise Failure("L2-LIVE-PEAK", peak=probe.peak, want=3)
            if [pair[0] for pair in returned] != ids_of(probe, prompts) or len(set(probe.ids)) < 3:
                raise Failure("L2-LIVE-IDS", shown)
            if not all(isinstance(text, str) and text.strip() for _, text in returned):
                raise Failure("L2-LIVE-TEXT", shown)

        engine = live_engine(lab)
        lab.run(grade(), limit_s=60.0)

    def test_streamed_and_whole_text_agree(self, lab: Lab) -> None:
        async def grade() -> None:
            prompt = backend.ask(self.QUESTIONS[0])
            pieces = lab.function("stream_text")(engine, prompt, PARAMS, "req-live-1")
            streamed_text = await joined(pieces)
            single = lab.function("generate_single_request")
            whole = await single(engine, prompt, PARAMS, "req-live-2")
            shown = {"streamed": streamed_text, "whole": whole}
            if not whole.strip():
                raise Failure("L2-LIVE-TEXT", shown)
            if backend.IS_BATCH_INVARIANT and streamed_text != whole:
                raise Failure("L2-LIVE-AGREE", shown)
            together_texts = lab.kept.get("texts")
            if backend.IS_BATCH_INVARIANT and together_texts and together_texts[0][1] != whole:
                shown = {"beside others": together_texts[0][1], "alone": whole}
                raise Failure("L2-LIVE-AGREE", shown)

        engine = live_engine(lab)
        lab.run(grade(), limit_s=60.0)

    def test_a_reader_who_leaves_frees_the_engine(self, lab: Lab) -> None:
        async def grade() -> None:
            long = backend.SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True)
            probe = Probe(engine)
            prompt = backend.ask(self.QUESTIONS[0])
            async with streamed(lab, probe, prompt, long) as pieces:
                await anext(pieces)
            del pieces
            if not await probe.wait_idle():
                raise Failure("L2-4B-LEAK")
            if num := backend.num_in_flight(engine):
                raise Failure("L2-LIVE-IDLE", num=num)

        engine = live_engine(lab)
        lab.run(grade(), limit_s=60.0)


class TestScript:
    """`python starter.py`, run once; every test looks at what it printed."""

    todo = "script"

    QUESTION = "Explain async programming in Python"
    LINES = (
        r"=== vLLM Async Online Serving Lab ===",
        r"",
        r"Initializing AsyncLLMEngine\.\.\.",
        r"Engine initialized successfully!",
        r"",
        r"Processing single request\.\.\.",
        r"Request ID: (req-[^\s()]+)",
        rf"Prompt: {QUESTION}",
        r"Generated: \S.*\.\.\.",
        r"",
        r"Processing concurrent requests\.\.\.",
        r"Request 1 \((req-[^\s()]+)\): Complete",
        r"Request 2 \((req-[^\s()]+)\): Complete",
        r"Request 3 \((req-[^\s()]+)\): Complete",
        r"",
        r"All 3 requests completed in (\d+\.\d\d) seconds",
        r"Throughput: (\d+\.\d\d) requests/second",
    )

    def test_ends_by_itself_with_status_0(self, lab: Lab) -> None:
        ended = script(lab).wait()
        shown = {"last line": Shown((ended.lines or ["(nothing)"])[-1])}
        if ended.status is None:
            limit = round(backend.START_LIMIT_S)
            raise Failure("L2-SCRIPT-HANG", shown, file=lab.learner.path.name, limit=limit)
        if ended.status != 0:
            shown["on stderr"] = Shown((ended.err.strip().splitlines() or ["(nothing)"])[-1])
            raise Failure(
                "L2-SCRIPT-STATUS", shown, file=lab.learner.path.name, status=ended.status
            )

    def test_prints_the_expected_lines(self, lab: Lab) -> None:
        self.matches(lab)

    def test_each_request_has_its_own_id(self, lab: Lab) -> None:
        ids = [
            match.group(1) for match in self.matches(lab) if match.group(0).startswith("Request")
        ]
        if len(set(ids)) != 4:
            raise Failure("L2-SCRIPT-IDS", {"ids": texts_of(ids)})

    def test_the_throughput_is_right(self, lab: Lab) -> None:
        elapsed, rate = (float(match.group(1)) for match in self.matches(lab)[-2:])
        # Both were rounded to two places: the time was within half a hundredth of what is shown.
        slowest, fastest = 3 / (elapsed + 0.005), 3 / max(elapsed - 0.005, 1e-9)
        if not slowest - 0.005 <= rate <= fastest + 0.005:
            shown = {"seconds": f"{elapsed:.2f}", "throughput": f"{rate:.2f}"}
            raise Failure("L2-SCRIPT-RATE", shown)

    def test_python_has_no_complaints(self, lab: Lab) -> None:
        for line in script(lab).wait().err.splitlines():
            if re.search(
                r"was never awaited|was destroyed but it is pending|exception was never retrieved",
                line,
            ):
                raise Failure("L2-SCRIPT-STDERR", {"on stderr": Shown(line.strip())})

    def matches(self, lab: Lab) -> list[re.Match[str]]:
        """Find each expected line below the one before; others may stand between."""
        lines = iter(script(lab).wait().lines)
        found = []
        for number, pattern in enumerate(self.LINES, start=1):
            match = next(filter(None, (re.fullmatch(pattern, line) for line in lines)), None)
            if match is None:
                wanted = pattern.replace("\\", "") or "(an empty line)"
                raise Failure(
                    "L2-SCRIPT-LINE",
                    {f"line {number}": Shown(wanted), "looked for": "after line above"},
                )
            found.append(match)
        return found
