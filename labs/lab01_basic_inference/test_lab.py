"""Grades Lab 01: `pytest test_lab.py -v`, or one TODO: `pytest test_lab.py -v -k todo3`.

Each class is a stage. TODO 1 to 4 are graded with an LLM that computes nothing and records what it
gets; the last two classes use the real one. The sentences you read when a test fails are in
labkit/hints_lab01.toml. You need not read this file to do the lab.
"""

import re

from labkit import backend
from labkit.feedback import Failure, Shown
from labkit.lab import Lab
from labkit.lab01_checks import (
    check_batch,
    check_lines,
    check_llm,
    check_outputs,
    check_params,
    check_settings,
    complete,
    create,
    displayed,
    live_llm,
    make_params,
    outputs_of,
    script,
)
from labkit.scripted import EngineFault
from labkit.scripted_llm import ScriptedLLM
from labkit.stand_ins import recorded_engines

LAB = "lab01"
PARAMS = backend.SamplingParams(temperature=0.7, max_tokens=24)


class TestTodo1CreateLlm:
    todo = "1"

    def test_returns_the_llm_with_both_settings(self, lab: Lab) -> None:
        with recorded_engines() as record:
            check_llm(record, create(lab, "lab/model-a", 300))
            check_settings(record.offline[0], "lab/model-a", 300)

    def test_uses_the_defaults_of_its_parameters(self, lab: Lab) -> None:
        with recorded_engines() as record:
            check_llm(record, create(lab))
            check_settings(record.offline[0], backend.DEFAULT_MODEL, 512)

    def test_loads_anew_in_each_call(self, lab: Lab) -> None:
        async def grade() -> None:
            make = lab.learner.function("create_llm", lab.learner.copy())
            first, second = make("lab/model-a"), make("lab/model-b")
            if first is second or len(record.offline) < 2:
                raise Failure("L1-1-CACHED")
            check_settings(record.offline[1], "lab/model-b", 512)

        with recorded_engines() as record:
            lab.run(grade())


class TestTodo2SamplingParams:
    todo = "2"

    def test_has_the_values_that_were_asked_for(self, lab: Lab) -> None:
        check_params(make_params(lab, 0.7, 0.9, 33), 0.7, 0.9, 33)

    def test_zero_is_a_value(self, lab: Lab) -> None:
        check_params(make_params(lab, 0.0, 1.0, 5), 0.0, None, 5)

    def test_has_the_defaults(self, lab: Lab) -> None:
        check_params(make_params(lab), 0.0, None, 64)

    def test_each_call_makes_its_own(self, lab: Lab) -> None:
        first = make_params(lab, 0.7, 0.9, 33)
        second = make_params(lab, 0.2, 0.8, 44)
        if first is second:
            raise Failure("L1-2-SHARED")
        check_params(second, 0.2, 0.8, 44)
        check_params(first, 0.7, 0.9, 33)


class TestTodo3GenerateCompletions:
    todo = "3"

    def test_completes_three_prompts_in_one_batch(self, lab: Lab) -> None:
        self.grade(lab, ["third", "first", "second"])

    def test_one_prompt(self, lab: Lab) -> None:
        self.grade(lab, ["alone"])

    def test_the_same_prompt_twice_is_two_requests(self, lab: Lab) -> None:
        self.grade(lab, ["same", "other", "same"])

    def test_no_prompts_give_no_outputs(self, lab: Lab) -> None:
        returned = complete(lab, ScriptedLLM(), [], PARAMS)
        if not isinstance(returned, list | tuple) or len(returned):
            raise Failure("L1-3-EMPTY", {"you returned": returned, "wanted": []})

    def test_lets_the_models_error_pass(self, lab: Lab) -> None:
        class Failing(ScriptedLLM):
            def generate(self, prompts, sampling_params=None, **options):
                raise EngineFault("out of memory")

        try:
            returned = complete(lab, Failing(), ["first"], PARAMS)
        except EngineFault:
            return
        shown = {"LLM raised": "out of memory", "you returned": returned}
        raise Failure("L1-3-SWALLOWED", shown)

    def grade(self, lab: Lab, prompts: list[str]) -> None:
        llm = ScriptedLLM()
        given = list(prompts)
        returned = complete(lab, llm, given, PARAMS)
        check_batch(llm, prompts, PARAMS)
        check_outputs(returned, llm, prompts)


class TestTodo4DisplayOutputs:
    todo = "4"

    def test_shows_one_output(self, lab: Lab) -> None:
        self.grade(lab, ("What is PEP 8?", "A style guide for Python code.", 7, "stop"))

    def test_shows_all_in_their_order(self, lab: Lab) -> None:
        self.grade(
            lab,
            ("Second letter?", "B", 1, "stop"),
            ("First letter?", "A, which comes before", 6, "length"),
            ("Second letter?", "B again", 2, "stop"),
        )

    def test_a_line_break_stays_in_its_line(self, lab: Lab) -> None:
        self.grade(lab, ("user\nHi\nassistant\n", 'Hello,\nit\'s "me".\n', 9, "length"))

    def test_an_empty_answer_is_shown_as_well(self, lab: Lab) -> None:
        self.grade(lab, ("Say nothing.", "", 0, "stop"))

    def grade(self, lab: Lab, *answers: tuple[str, str, int, str]) -> None:
        outputs = outputs_of(*answers)
        check_lines(displayed(lab, outputs), outputs)


class TestLive:
    """Your functions on the real model, which TODO 1 loads."""

    todo = "live"

    QUESTIONS = ("What is continuous batching?", "What is a decorator?", "What is PEP 492 about?")

    def test_a_batch_on_the_real_model(self, lab: Lab) -> None:
        async def grade() -> None:
            prompts = [backend.ask(question) for question in self.QUESTIONS]
            params = lab.function("create_sampling_params")(0.0, 1.0, 12)
            outputs = lab.function("generate_completions")(llm, prompts, params)
            if [output.prompt for output in outputs] != prompts:
                raise Failure("L1-LIVE-ORDER", {"you returned": outputs})
            for output in outputs:
                completion = output.outputs[0]
                if not completion.text.strip():
                    raise Failure("L1-LIVE-TEXT", {"answer": completion.text})
                if len(completion.token_ids) > 12:
                    raise Failure("L1-LIVE-LENGTH", want=12, num=len(completion.token_ids))
            lab.kept["outputs"] = outputs

        llm = live_llm(lab)
        lab.run(grade(), limit_s=60.0)
        check_lines(displayed(lab, lab.kept["outputs"]), lab.kept["outputs"])


class TestScript:
    """`python starter.py`, run once; every test looks at what it printed."""

    todo = "script"

    LINES = (
        r"=== Basic Inference Lab ===",
        r"",
        r"Loading the model\.\.\.",
        r"Model loaded\.",
        r"",
        *(r"Prompt\s*: ['\"].*['\"]", r"Generated\s*: ['\"].+['\"]", r"Tokens\s*: \d+ \(\w+\)") * 2,
        r"",
        r"2 prompts completed in \d+\.\d\d seconds",
        r"Throughput: \d+\.\d\d tokens/second",
    )

    def test_ends_by_itself_with_status_0(self, lab: Lab) -> None:
        ended = script(lab).wait()
        shown = {"last line": Shown((ended.lines or ["(nothing)"])[-1])}
        file = lab.learner.path.name
        if ended.status is None:
            limit = round(backend.START_LIMIT_S)
            raise Failure("L1-SCRIPT-HANG", shown, file=file, limit=limit)
        if ended.status != 0:
            shown["on stderr"] = Shown((ended.err.strip().splitlines() or ["(nothing)"])[-1])
            raise Failure("L1-SCRIPT-STATUS", shown, file=file, status=ended.status)

    def test_prints_the_expected_lines(self, lab: Lab) -> None:
        lines = iter(script(lab).wait().lines)
        for number, pattern in enumerate(self.LINES, start=1):
            if not any(re.fullmatch(pattern, line.strip()) for line in lines):
                wanted = pattern.replace("\\", "") or "(an empty line)"
                shown = {f"line {number}": Shown(wanted), "looked for": "after line above"}
                raise Failure("L1-SCRIPT-LINE", shown)
