"""Grades Lab 03: `pytest test_lab.py -v`, or one part: `pytest test_lab.py -v -k todoA`.

Each class is a part. They are graded on an engine that follows a script; the last class tries those
that pass on the real one. The sentences you read when a test fails are in labkit/hints_lab03.toml.
You need not read this file to do the lab.
"""

import asyncio
import contextlib

from labkit import backend
from labkit.feedback import Failure
from labkit.lab import Lab
from labkit.lab03_checks import (
    FAULT,
    HALF,
    PARAMS,
    SLOW,
    SOON_S,
    Queue,
    Stamped,
    Watched,
    check_order,
    check_times,
    check_until,
    check_values,
    clock_set_back,
    clock_standing_still,
    expect_fault,
    expect_idle,
    expect_timeout,
    frozen,
    gone,
    live_engine,
    timed,
    undisturbed,
    until,
    until_stop,
    until_stuck,
)
from labkit.lab03_http import (
    BAD_BODIES,
    HOW_STREAMING,
    HOW_WHOLE,
    Site,
    check_bad_body,
    check_no_traceback,
    need_fastapi,
)
from labkit.probe import Probe
from labkit.scripted import EngineFault, Fail, Hang, Pause, Say, ScriptedEngine, Start, Wait
from labkit.stand_ins import recorded_engines
from labkit.timing import monotonic

LAB = "lab03"


class TestTodoACancel:
    todo = "A"

    def test_an_answer_that_nobody_stops_is_finished(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": [Say("Yes"), Say(""), Say(", sir.\n")]}))
            returned = await until_stop(lab, probe, asyncio.Event())
            if not probe.calls:
                raise Failure("L3-A-UNREAD")
            check_values(probe, "L3-A-VALUES", "req-a")
            check_until(returned, ["Yes, sir.\n"], is_finished=True)
            await expect_idle(probe, "L3-A-LEAK")

        lab.run(grade(), limit_s=SOON_S, hang="L3-A-BOTH")

    def test_a_slow_answer_is_waited_for(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": SLOW}))
            returned = await until_stop(lab, probe, asyncio.Event())
            check_until(returned, ["One two three"], is_finished=True, cut="L3-A-CUT")

        lab.run(grade())

    def test_stops_although_no_further_token_comes(self, lab: Lab) -> None:
        self.stop(lab, [Say("Half"), Say(" of"), Hang()], 2, ["Half of"])

    def test_stops_before_the_first_token(self, lab: Lab) -> None:
        self.stop(lab, [Hang()], 0, [""])

    def test_stops_between_tokens_that_keep_coming(self, lab: Lab) -> None:
        many = [step for _ in range(400) for step in (Pause(0.005), Say("x"))]
        texts = ["x" * number for number in range(3, 400)]
        self.stop(lab, many, 3, texts)

    def test_stops_when_it_was_told_to_before_it_began(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": HALF}))
            stop = asyncio.Event()
            stop.set()
            returned = await until_stop(lab, probe, stop)
            check_until(returned, ["Half", ""], is_finished=False)
            await expect_idle(probe, "L3-A-LEAK")

        lab.run(grade(), limit_s=SOON_S, hang="L3-A-DEAF")

    def test_lets_the_engines_error_pass(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": FAULT}))
            await expect_fault(until_stop(lab, probe, asyncio.Event()), "L3-A-SWALLOWED")

        lab.run(grade())

    def test_cancelling_it_leaves_nothing_over(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": HALF}))
            task = asyncio.create_task(until_stop(lab, probe, asyncio.Event()))
            await until(lambda: probe.calls and probe.calls[0].outputs)
            await gone(task, "L3-A-CANCEL")
            await expect_idle(probe, "L3-A-LEAK")

        lab.run(grade(), hang="L3-A-CANCEL")

    def stop(self, lab: Lab, script: list, num_outputs: int, texts: list[str]) -> None:
        """Set the flag after so many outputs."""

        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": script}))
            stop = asyncio.Event()
            task = asyncio.create_task(until_stop(lab, probe, stop))
            await until(
                lambda: (
                    task.done() or (probe.num_live and len(probe.calls[0].outputs) >= num_outputs)
                )
            )
            # The last output is on its way: let it arrive.
            await until_stuck(task.done)
            stop.set()
            check_until(await task, texts, is_finished=False)
            await expect_idle(probe, "L3-A-LEAK")

        lab.run(grade(), limit_s=SOON_S, hang="L3-A-DEAF")


class TestTodoBPriority:
    todo = "B"

    def test_a_free_place_is_taken_at_once(self, lab: Lab) -> None:
        async def grade(queue: Queue) -> None:
            await queue.submit("a", 3)
            await queue.expect_started("a", code="L3-B-STUCK")
            call = queue.probe.calls[0]
            if (call.prompt, call.request_id, call.sampling_params) != ("a", "req-h", PARAMS):
                raise Failure("L3-B-VALUES", {"engine got": (call.prompt, call.request_id)})
            await queue.finish("a")

        self.grade(lab, 1, grade)

    def test_no_more_than_allowed_and_no_fewer(self, lab: Lab) -> None:
        async def grade(queue: Queue) -> None:
            for name in "abcde":
                await queue.submit(name)
            await until_stuck(lambda: queue.probe.num_live > 2)
            queue.check_limit(2)
            await queue.expect_started("a", "b", code="L3-B-UNUSED", peak=1, limit=2)
            await queue.finish(*"abcde")
            queue.check_limit(2)

        self.grade(lab, 2, grade)

    def test_urgent_ones_first_then_first_come(self, lab: Lab) -> None:
        async def grade(queue: Queue) -> None:
            priorities = {"b": 5, "c": 1, "d": 3, "e": 1, "f": 5, "g": -2}
            await queue.submit("a", 0)
            for name, priority in priorities.items():
                await queue.submit(name, priority)
            queue.check_limit(1)
            await queue.finish(*"abcdefg")
            queue.check_limit(1)
            check_order(queue.started[1:], priorities)

        self.grade(lab, 1, grade)

    def test_who_comes_in_the_same_tick_of_the_clock_keeps_its_place(self, lab: Lab) -> None:
        async def grade(queue: Queue) -> None:
            priorities = {"b": 1, "c": 1, "d": 0, "e": 1}
            await queue.submit("a")
            for name, priority in priorities.items():
                await queue.submit(name, priority)
            await queue.finish(*"abcde")
            check_order(queue.started[1:], priorities)

        with clock_standing_still(lab.learner) as module:
            try:
                self.grade(lab, 1, grade, module)
            except (Failure, TypeError) as error:
                # The same with a clock that went was right.
                raise Failure("L3-B-CLOCK", getattr(error, "shown", None)) from error

    def test_a_late_urgent_one_overtakes(self, lab: Lab) -> None:
        async def grade(queue: Queue) -> None:
            for name, priority in (("a", 0), ("b", 2), ("c", 1)):
                await queue.submit(name, priority)
            await queue.finish("a")
            await queue.expect_started("a", "c", code="L3-B-LOST", what="a request ended")
            await queue.submit("d", 0)
            await queue.finish("c")
            await queue.expect_started("a", "c", "d", code="L3-B-LOST", what="a request ended")
            check_order(queue.started[2:3], {"d": 0})
            await queue.finish("d", "b")

        self.grade(lab, 1, grade)

    def test_who_was_cancelled_while_waiting_never_starts(self, lab: Lab) -> None:
        async def grade(queue: Queue) -> None:
            for name in "abc":
                await queue.submit(name)
            queue.tasks["b"].cancel()
            await asyncio.wait([queue.tasks["b"]])
            await queue.finish("a")
            what = "a waiting request was cancelled"
            await queue.expect_started("a", "c", code="L3-B-LOST", what=what)
            if "b" in queue.started:
                raise Failure("L3-B-CANCELLED", {"engine got": queue.started})
            await queue.finish("c")

        self.grade(lab, 1, grade)

    def test_an_error_reaches_its_caller_and_frees_the_place(self, lab: Lab) -> None:
        async def grade(queue: Queue) -> None:
            bad = await queue.submit("a")
            await queue.submit("b")
            await asyncio.wait([bad])
            await expect_fault(bad, "L3-B-SWALLOWED")
            await queue.expect_started("a", "b", code="L3-B-LOST", what="a request failed")
            await queue.finish("b")

        self.grade(lab, 1, grade, a=FAULT)

    def test_cancelling_one_that_runs_ends_it_and_frees_the_place(self, lab: Lab) -> None:
        async def grade(queue: Queue) -> None:
            await queue.submit("a")
            await queue.submit("b")
            queue.tasks["a"].cancel()
            await asyncio.wait([queue.tasks["a"]])
            if not await until_stuck(lambda: queue.probe.calls[0].ending is not None):
                raise Failure("L3-B-LEAK")
            what = "a running request was cancelled"
            await queue.expect_started("a", "b", code="L3-B-LOST", what=what)
            await queue.finish("b")

        self.grade(lab, 1, grade)

    def test_a_place_is_not_lost_with_who_just_got_it(self, lab: Lab) -> None:
        """Cancel a waiting one at each moment round the one when its turn comes."""
        for num_turns in range(14):

            async def grade(queue: Queue, num_turns: int = num_turns) -> None:
                for name in "abc":
                    await queue.submit(name)
                queue.engine.open("a")
                for _ in range(num_turns):
                    await asyncio.sleep(0)
                queue.tasks["b"].cancel()
                await asyncio.wait([queue.tasks["b"]])
                await queue.tasks["a"]
                begun = [name for name in "ab" if name in queue.started]
                await queue.expect_started(*begun, "c", code="L3-B-TURN")
                await queue.finish("c")

            self.grade(lab, 1, grade)

    def test_two_dispatchers_know_nothing_of_each_other(self, lab: Lab) -> None:
        async def grade(first: Queue) -> None:
            second = Queue(lab, 1)
            try:
                await first.submit("a")
                await second.submit("b")
                await second.expect_started("b", code="L3-B-SHARED")
                await second.finish("b")
                await first.finish("a")
            finally:
                await second.close()

        self.grade(lab, 1, grade)

    def grade(self, lab: Lab, max_in_flight: int, play, module=None, **scripts) -> None:
        async def grade() -> None:
            queue = Queue(lab, max_in_flight, module, **scripts)
            try:
                await play(queue)
            finally:
                await queue.close()

        lab.run(grade(), limit_s=2.0, hang="L3-B-ASLEEP")


class TestTodoCTimeout:
    todo = "C"

    def test_in_time_it_returns_the_whole_text(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": [Say("Yes"), Say(", sir.\n")]}))
            text = await timed(lab, probe, 60.0)
            if text != "Yes, sir.\n":
                raise Failure("L3-C-TEXT", {"you returned": text, "wanted": "Yes, sir.\n"})
            check_values(probe, "L3-C-VALUES", "req-c")
            await expect_idle(probe, "L3-C-LEAK")

        lab.run(grade())

    def test_it_fires_although_no_token_comes(self, lab: Lab) -> None:
        self.late(lab, [Hang()], "L3-C-RETURNED")

    def test_it_fires_between_two_tokens(self, lab: Lab) -> None:
        self.late(lab, HALF, "L3-C-PARTIAL")

    def test_the_limit_is_for_all_tokens_together(self, lab: Lab) -> None:
        many = [step for _ in range(24) for step in (Pause(0.03), Say("x"))]
        # On a machine that pauses so long, a limit for each token strikes as well.
        attempt = undisturbed(lambda: self.attempt(lab, many, "L3-C-PERTOKEN"), 0.1)
        lab.run(attempt, limit_s=3.0, hang="L3-C-DEAF")

    def test_lets_the_engines_error_pass(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": FAULT}))
            await expect_fault(timed(lab, probe, 60.0), "L3-C-SWALLOWED")

        lab.run(grade())

    def test_cancelling_is_not_a_timeout(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": HALF}))
            task = asyncio.create_task(timed(lab, probe, 60.0))
            await until(lambda: probe.calls and probe.calls[0].outputs)
            await gone(task, "L3-C-CANCEL")
            await expect_idle(probe, "L3-C-LEAK")

        lab.run(grade(), hang="L3-C-CANCEL")

    def test_nothing_happens_when_the_time_of_one_that_was_in_time_is_over(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(ScriptedEngine({"Hello": [Say("Yes.")]}))
            try:
                await timed(lab, probe, 0.2)
                await asyncio.sleep(0.25)
            except TimeoutError:
                return  # on a machine this busy there is nothing to see
            except asyncio.CancelledError:
                raise Failure("L3-C-LATER") from None

        lab.run(grade())

    def late(self, lab: Lab, script: list, code: str) -> None:
        """The time must be over before this script is; code: of a text instead."""

        lab.run(self.attempt(lab, script, code), hang="L3-C-DEAF")

    async def attempt(self, lab: Lab, script: list, code: str) -> None:
        probe = Probe(ScriptedEngine({"Hello": script}))
        await expect_timeout(timed(lab, probe, 0.15), code, 0.15)
        await expect_idle(probe, "L3-C-LEAK")


class TestTodoDHttp:
    todo = "D"

    def test_a_prompt_is_answered_with_its_text(self, lab: Lab) -> None:
        async def grade(site: Site) -> None:
            answer = await site.post({"prompt": "Hello", "max_tokens": 7}).ended()
            site.check_text(answer, "Yes, sir.\n")
            got = site.probe.calls[0].sampling_params.max_tokens
            if got != 7:
                raise Failure("L3-D-PARAMS", want=7, got=got)

        self.grade(lab, grade, Hello=[Say("Yes"), Say(""), Say(", sir.\n")])

    def test_a_stream_has_the_same_text(self, lab: Lab) -> None:
        async def grade(site: Site) -> None:
            answer = await site.post({"prompt": "Hello", "stream": True}).ended()
            site.check_pieces(answer, "Ha, ha, ha.\n")

        self.grade(lab, grade, Hello=[Say("Ha"), Say(", ha"), Say(""), Say(", ha.\n")])

    def test_health_and_metrics_answer_while_a_request_runs(self, lab: Lab) -> None:
        async def grade(site: Site) -> None:
            await site.check_metrics("at the beginning", total=0, running=0)
            post = site.post({"prompt": "Hello"})
            await until(lambda: site.probe.num_live or post.status)
            await site.get("/health")
            await site.check_metrics("while one runs", total=1, running=1)
            site.engine.open("go")
            site.check_text(await post.ended(), "Yes.")
            await site.check_metrics("after it", total=1, running=0)

        self.grade(lab, grade, hang="L3-D-BLOCKED", Hello=[Say("Yes"), Wait("go"), Say(".")])

    def test_requests_share_the_engine_and_run_together(self, lab: Lab) -> None:
        async def grade(site: Site) -> None:
            posts = [site.post({"prompt": name, "stream": name == "b"}) for name in "abc"]
            for post in posts:
                site.check(await post.ended())
            if site.probe.peak < 3:
                raise Failure("L3-D-SEQUENTIAL", peak=site.probe.peak, want=3)
            num = len(set(site.probe.ids))
            if num < 3:
                raise Failure("L3-D-SAMEID", want=3, num=num, s="s" * (num > 1))

        self.grade(lab, grade, barrier=3)

    def test_a_stream_arrives_piece_by_piece(self, lab: Lab) -> None:
        async def grade(site: Site) -> None:
            post = site.post({"prompt": "Hello", "stream": True})
            await post.received(1)
            site.engine.open("second")
            site.check_pieces(await post.ended(), "Hi there")

        script = [Say("Hi"), Wait("second"), Say(" there")]
        self.grade(lab, grade, hang="L3-D-LATE", Hello=script)

    def test_a_client_that_leaves_a_stream_ends_its_request(self, lab: Lab) -> None:
        self.leave(lab, HOW_STREAMING, stream=True)

    def test_a_client_that_leaves_without_a_stream_does_so_too(self, lab: Lab) -> None:
        self.leave(lab, HOW_WHOLE, stream=False)

    def test_bad_bodies_are_the_clients_mistakes(self, lab: Lab) -> None:
        async def grade(site: Site) -> None:
            for name, body in BAD_BODIES:
                check_bad_body(site, await site.post(body).ended(), name)
            await site.check_metrics("after bad bodies", total=0, running=0)

        self.grade(lab, grade)

    def test_an_engine_that_fails_is_the_servers_fault(self, lab: Lab) -> None:
        async def grade(site: Site) -> None:
            answer = await site.post({"prompt": "Hello"}).ended()
            check_no_traceback(answer)
            if answer.status is None or answer.status < 500:
                shown = {"it answered": answer.text}
                raise Failure("L3-D-HIDDEN", shown, status=answer.status)
            await (site.post({"prompt": "Hello", "stream": True})).ended()
            await site.check_metrics("after two that failed", total=2, running=0)

        self.grade(lab, grade, Hello=FAULT)

    def leave(self, lab: Lab, how: str, stream: bool) -> None:
        async def grade(site: Site) -> None:
            post = site.post({"prompt": "Hello", "stream": stream})
            await until(
                lambda: (
                    post.status not in (None, 200)
                    or (site.probe.calls and site.probe.calls[0].outputs)
                )
            )
            if stream:
                await post.received(1)
            post.leave()
            # A generator that stood at a yield when its reader was cancelled is closed as soon as
            # Python collects its garbage: that is no mistake of whoever wrote it.
            if not await site.probe.wait_idle(collects_garbage=True):
                raise Failure("L3-D-LEAK", how=how)
            await post.ended()
            site.check_engine()
            await site.check_metrics("after the client left", total=1, running=0)

        # A stream that is late hangs here as well; the stage would have failed before.
        self.grade(lab, grade, Hello=HALF)

    def grade(self, lab: Lab, play, hang: str | None = None, barrier: int = 0, **scripts) -> None:
        need_fastapi(lab)

        async def grade() -> None:
            await play(Site(lab, record, barrier, **scripts))

        with recorded_engines() as record:
            lab.run(grade(), hang=hang)


class TestTodoEMonitor:
    todo = "E"

    def test_outputs_pass_at_once_and_unchanged(self, lab: Lab) -> None:
        async def grade() -> None:
            script = [Say("Hi"), Wait("second"), Say(""), Say(" there")]
            watched = Watched(lab, ScriptedEngine({"Hello": script}))
            stream = watched.stream()
            outputs = [await anext(stream)]
            watched.engine.open("second")
            outputs += [output async for output in stream]
            passed = watched.probe.calls[0].outputs
            if len(outputs) != len(passed) or any(
                got is not want for got, want in zip(outputs, passed, strict=True)
            ):
                raise Failure("L3-E-CHANGED", {"engine gave": len(passed), "you": len(outputs)})
            watched.look_idle("after one request", completed=1)

        lab.run(grade(), hang="L3-E-LATE")

    def test_each_state_is_counted_while_it_lasts(self, lab: Lab) -> None:
        async def grade() -> None:
            script = [Wait("first"), Say("Hi"), Wait("last"), Say(" there")]
            watched = Watched(lab, ScriptedEngine({"Hello": script}))
            tasks = [asyncio.create_task(watched.read()) for _ in range(2)]
            await until(lambda: watched.probe.num_live == 2)
            watched.look("before the first output", submitted=2, waiting=2, running=0)
            watched.engine.open("first")
            await until(lambda: all(call.outputs for call in watched.probe.calls))
            await until_stuck(lambda: False, 20)
            for task in tasks:
                if task.done():
                    task.result()
            watched.look("between two outputs", submitted=2, waiting=0, running=2)
            watched.engine.open("last")
            await asyncio.gather(*tasks)
            watched.look_idle("after two requests", completed=2)

        lab.run(grade())

    def test_an_error_is_a_failed_request(self, lab: Lab) -> None:
        async def grade() -> None:
            early = [Fail(EngineFault("no memory"))]
            watched = Watched(lab, ScriptedEngine({"Hello": FAULT, "early": early}))
            await expect_fault(watched.read(), "L3-E-SWALLOWED")
            watched.look_idle("after an error", failed=1)
            await expect_fault(watched.read("early"), "L3-E-SWALLOWED")
            watched.look_idle("after an error without any output", failed=2)

        lab.run(grade())

    def test_a_reader_who_leaves_has_cancelled(self, lab: Lab) -> None:
        async def grade() -> None:
            watched = Watched(lab, ScriptedEngine({"Hello": HALF, "silent": [Hang()]}))
            stream = watched.stream()
            await anext(stream)
            await stream.aclose()
            await expect_idle(watched.probe, "L3-E-LEAK")
            watched.look_idle("after its reader left", cancelled=1)
            for number, prompt in enumerate(("Hello", "silent"), start=2):
                task = asyncio.create_task(watched.read(prompt))
                await until(lambda: watched.probe.num_live)
                await until_stuck(lambda: False, 20)
                task.cancel()
                await asyncio.wait([task])
                await expect_idle(watched.probe, "L3-E-LEAK")
                watched.look_idle("after its task was cancelled", cancelled=number)

        lab.run(grade())

    def test_a_reader_who_leaves_after_the_last_output_has_not(self, lab: Lab) -> None:
        async def grade() -> None:
            watched = Watched(lab, ScriptedEngine({"Hello": [Say("Yes"), Say(".")]}))
            async with contextlib.aclosing(watched.stream()) as stream:
                async for output in stream:
                    if output.finished:
                        break
            if watched.look("after break").cancelled:
                raise Failure("L3-E-BREAK")
            seen = watched.look_idle("after break", completed=1)
            if len(seen.latency_s) != 1:
                raise Failure("L3-E-LATENCY", {"latency_s": seen.latency_s})

        lab.run(grade())

    def test_an_aborted_request_was_cancelled(self, lab: Lab) -> None:
        async def grade() -> None:
            watched = Watched(lab, ScriptedEngine({"Hello": HALF}))
            task = asyncio.create_task(watched.read())
            await until(lambda: watched.probe.calls and watched.probe.calls[0].outputs)
            await until_stuck(lambda: False, 20)
            await watched.engine.abort(watched.probe.ids[0])
            await task
            if watched.look("after abort").completed:
                raise Failure("L3-E-ABORTED")
            watched.look_idle("after abort", cancelled=1)

        lab.run(grade())

    def test_the_three_times_are_different_things(self, lab: Lab) -> None:
        lab.run(self.measure(lab, None))

    def test_somebody_sets_the_clock_back(self, lab: Lab) -> None:
        async def grade() -> None:
            try:
                await self.measure(lab, module)
            except Failure as failure:
                raise Failure("L3-E-CLOCK", failure.shown) from failure

        with clock_set_back():
            module = lab.learner.copy()
            lab.run(grade())

    def test_only_what_came_is_measured(self, lab: Lab) -> None:
        async def grade() -> None:
            watched = Watched(lab, ScriptedEngine({"Hello": FAULT, "early": FAULT[1:]}))
            await expect_fault(watched.read("early"), "L3-E-SWALLOWED")
            seen = watched.look("after an error")
            if seen.ttft_s or seen.waiting_s:
                raise Failure("L3-E-TTFT" if seen.ttft_s else "L3-E-WAITING")
            await expect_fault(watched.read(), "L3-E-SWALLOWED")
            seen = watched.look("after an error")
            if seen.latency_s:
                raise Failure("L3-E-LATENCY", {"latency_s": seen.latency_s})
            if len(seen.ttft_s) != 1:
                raise Failure("L3-E-TTFT", {"ttft_s": seen.ttft_s})

        lab.run(grade())

    def test_who_was_aborted_in_the_queue_never_began(self, lab: Lab) -> None:
        async def grade() -> None:
            watched = Watched(lab, ScriptedEngine({"Hello": [Hang()]}))
            task = asyncio.create_task(watched.read())
            await until(lambda: watched.probe.num_live)
            await until_stuck(lambda: False, 20)
            await watched.engine.abort(watched.probe.ids[0])
            await task
            seen = watched.look_idle("after abort in the queue", cancelled=1)
            if seen.waiting_s:
                raise Failure("L3-E-UNSTARTED", {"waiting_s": seen.waiting_s})
            if seen.ttft_s:
                raise Failure("L3-E-TTFT", {"ttft_s": seen.ttft_s})

        lab.run(grade())

    def test_a_snapshot_stays_as_it_is(self, lab: Lab) -> None:
        async def grade() -> None:
            watched = Watched(lab, ScriptedEngine())
            await watched.read("a")
            seen = watched.look("after one request")
            before = frozen(seen)
            await watched.read("b")
            if frozen(seen) != before:
                raise Failure("L3-E-ALIAS")
            other = Watched(lab, ScriptedEngine())
            if other.look("in a second monitor").submitted:
                raise Failure("L3-E-SHARED")

        lab.run(grade())

    def test_an_engine_without_statistics(self, lab: Lab) -> None:
        async def grade() -> None:
            watched = Watched(lab, ScriptedEngine(with_metrics=False))
            await watched.read()
            seen = watched.look_idle("after one request", completed=1)
            if seen.waiting_s:
                raise Failure("L3-E-NOMETRICS", {"waiting_s": seen.waiting_s})

        lab.run(grade())

    async def measure(self, lab: Lab, module) -> None:
        script = [Pause(0.04), Start(), Pause(0.02), Say(""), Pause(0.05), Say("Hi")]
        engine = Stamped(ScriptedEngine({"Hello": [*script, Pause(0.04), Say("!")]}))
        watched = Watched(lab, engine, module)
        began = monotonic()
        outputs = await watched.read()
        seen = watched.look_idle("after one request", completed=1)
        waiting_s = outputs[0].metrics.scheduled_ts - outputs[0].metrics.queued_ts
        check_times(seen, waiting_s, engine.bounds(1, began), engine.bounds(2, began))


class TestLive:
    """The parts that pass, on the real engine."""

    todo = "live"

    LONG = backend.SamplingParams(temperature=0.0, max_tokens=1500, ignore_eos=True)
    PROMPT = backend.ask("What is a coroutine?")

    def test_part_a_stops_a_long_answer(self, lab: Lab) -> None:
        async def grade() -> None:
            probe, stop = Probe(engine), asyncio.Event()
            generate = lab.function("generate_until")
            task = asyncio.create_task(generate(probe, self.PROMPT, self.LONG, "live-a", stop))
            await until(lambda: task.done() or (probe.calls and probe.calls[0].outputs))
            stop.set()
            text, is_finished = await task
            if is_finished or not text:
                raise Failure("L3-LIVE-STOP", {"you returned": (text, is_finished)})
            await self.expect_idle(engine, probe)

        lab.require("A")
        engine = live_engine(lab)
        lab.run(grade(), limit_s=60.0)

    def test_part_b_lets_an_urgent_one_overtake(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(engine)
            dispatcher = lab.function("PriorityDispatcher")(probe, 1)
            tasks = []
            for name, priority in (("first", 5), ("patient", 5), ("urgent", 0)):
                submitted = dispatcher.submit(self.PROMPT, PARAMS, name, priority)
                tasks.append(asyncio.create_task(submitted))
                await until_stuck(lambda: False, 12)
            await asyncio.gather(*tasks)
            if probe.ids != ["first", "urgent", "patient"]:
                raise Failure("L3-LIVE-ORDER", {"engine got": probe.ids})
            await self.expect_idle(engine, probe)

        lab.require("B")
        engine = live_engine(lab)
        lab.run(grade(), limit_s=60.0)

    def test_part_c_gives_up_in_time(self, lab: Lab) -> None:
        async def grade() -> None:
            probe = Probe(engine)
            generate = lab.function("generate_with_timeout")
            try:
                await generate(probe, self.PROMPT, self.LONG, "live-c", 0.15)
            except TimeoutError:
                await self.expect_idle(engine, probe)
                return
            raise Failure("L3-LIVE-TIMEOUT", ms=150)

        lab.require("C")
        engine = live_engine(lab)
        lab.run(grade(), limit_s=60.0)

    def test_part_d_answers_a_post(self, lab: Lab) -> None:
        async def grade() -> None:
            from labkit.asgi import Exchange

            app = lab.function("create_app")(engine)
            body = {"prompt": self.PROMPT, "max_tokens": 8}
            answer = await Exchange(app, "POST", "/generate", body).ended()
            text = (answer.json() or {}).get("text")
            if answer.status != 200 or not text:
                raise Failure("L3-LIVE-HTTP", status=answer.status, text=text)

        lab.require("D")
        engine = live_engine(lab)
        lab.run(grade(), limit_s=60.0)

    def test_part_e_counts_three(self, lab: Lab) -> None:
        async def grade() -> None:
            monitor = lab.function("Monitor")(engine)

            async def read(name: str) -> None:
                async for _ in monitor.generate(self.PROMPT, PARAMS, name):
                    pass

            await asyncio.gather(*(read(f"live-e-{number}") for number in range(3)))
            seen = monitor.snapshot()
            is_idle = seen.waiting == seen.running == 0
            if not is_idle or seen.completed != 3 or len(seen.latency_s) != 3:
                raise Failure("L3-LIVE-COUNTS", {"snapshot": seen})

        lab.require("E")
        engine = live_engine(lab)
        lab.run(grade(), limit_s=60.0)

    async def expect_idle(self, engine, probe: Probe) -> None:
        is_idle = await probe.wait_idle()
        if num := backend.num_in_flight(engine) if is_idle else probe.num_live:
            raise Failure("L3-LIVE-IDLE", num=num)
