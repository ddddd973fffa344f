"""What Lab 01's tests look at: who returned or printed what, and which mistake that tells of.

Called from the coroutines that the tests run; all raise Failure with a code of hints.toml.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from collections.abc import Sequence
from typing import Any

from labkit import backend
from labkit.feedback import Failure, Shown, clip, texts_of
from labkit.lab import Lab
from labkit.script import Script
from labkit.scripted import CompletionOutput, RequestOutput
from labkit.scripted_llm import ScriptedLLM
from labkit.stand_ins import Record


def call(lab: Lab, function: str, code: str, *arguments: Any, fresh: bool = False) -> Any:
    """Call a plain function on the watched loop, so that one that never ends is named.

    code: of one that gives a coroutine. fresh: of a copy of the file that is loaded now.
    """

    async def called() -> Any:
        module = lab.learner.copy() if fresh else None
        made = lab.learner.function(function, module)(*arguments)
        if inspect.isawaitable(made) or inspect.isasyncgen(made):
            if inspect.iscoroutine(made):
                made.close()
            raise Failure(code, {"you returned": made})
        return made

    return lab.run(called())


# --- TODO 1


def create(lab: Lab, *arguments: Any) -> Any:
    """Call create_llm of a fresh copy of the file, whose engine classes only record."""
    return call(lab, "create_llm", "L1-1-ASYNC", *arguments, fresh=True)


def check_llm(record: Record, llm: Any) -> None:
    """Is it the one LLM that was made?"""
    shown = {"you returned": llm}
    if record.calls or isinstance(llm, backend.AsyncEngineArgs):
        raise Failure("L1-1-ONLINE", shown)
    if isinstance(llm, type):
        raise Failure("L1-1-CLASS", shown)
    if not record.offline:
        raise Failure("L1-1-NOCALL", shown)
    if llm is None:
        raise Failure("L1-1-NONE", shown)
    if len(record.offline) > 1:
        raise Failure("L1-1-TWICE", num=len(record.offline))
    if llm is not record.offline[0]:
        raise Failure("L1-1-OTHER", shown)


def check_settings(llm: ScriptedLLM, model: str, max_model_len: int) -> None:
    """Did both arguments arrive? Other settings are free."""
    settings = dict(llm.settings)
    if llm.arguments:  # vLLM's first parameter is the model, by place or by name
        settings["model"] = llm.arguments[0]
    for name in settings:
        if name in ("model_name", "max_len", "max_length", "max_tokens"):
            raise Failure("L1-1-ARGNAME", name=repr(name))
    if "model" in settings and not isinstance(settings["model"], str):
        raise Failure("L1-1-SETTINGS", {"LLM got": settings["model"]})
    for name, want in (("model", model), ("max_model_len", max_model_len)):
        got = settings.get(name)
        if got != want:
            said = "its default" if got is None else f"{name}={got!r}"
            raise Failure("L1-1-CONSTANT", name=name, asked=f"{name}={want!r}", got=said)


# --- TODO 2


def make_params(lab: Lab, *arguments: Any) -> Any:
    """Call create_sampling_params and make sure that it gave some."""
    params = call(lab, "create_sampling_params", "L1-2-ASYNC", *arguments)
    shown = {"you returned": params}
    if params is None:
        raise Failure("L1-2-NONE", shown)
    if isinstance(params, type):
        raise Failure("L1-2-CLASS", shown)
    if not isinstance(params, backend.SamplingParams):
        raise Failure("L1-2-TYPE", shown, kind=type(params).__name__)
    return params


def check_params(params: Any, temperature: float, top_p: float | None, max_tokens: int) -> None:
    """Are these the values? top_p: None where greedy decoding makes it meaningless."""
    wanted = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
    for name, want in wanted.items():
        got = getattr(params, name)
        if want is not None and got != want:
            values = {"asked": f"{name}={want!r}", "got": f"{name}={got!r}"}
            raise Failure("L1-2-VALUE" if want else "L1-2-ZERO", **values)


# --- TODO 3


def complete(lab: Lab, llm: Any, prompts: list[str], params: Any) -> Any:
    """Call generate_completions."""
    return call(lab, "generate_completions", "L1-3-ASYNC", llm, prompts, params)


def check_batch(llm: ScriptedLLM, prompts: list[str], params: Any) -> None:
    """Did the model get one batch, with exactly these values?"""
    if not llm.batches:
        raise Failure("L1-3-NOCALL")
    got, got_params = llm.batches[0]
    if isinstance(got, backend.SamplingParams):
        raise Failure("L1-3-SWAPPED", {"generate got": Shown(f"prompts={clip(got, 40)}")})
    seen = [
        prompt
        for batch, _ in llm.batches
        for prompt in ([batch] if isinstance(batch, str) else batch)
    ]
    shown = {"prompts": prompts, "model got": seen}
    if len(llm.batches) > 1:
        raise Failure("L1-3-ONEBYONE", num=len(llm.batches))
    if len(seen) == 1 and len(prompts) > 1 and all(prompt in str(seen[0]) for prompt in prompts):
        raise Failure("L1-3-JOINED", shown)
    if len(seen) < len(prompts):
        is_set = set(seen) == set(prompts)
        code = "L1-3-DEDUP" if is_set else "L1-3-LOST"
        raise Failure(code, shown, want=len(prompts), num=len(seen))
    if sorted(map(str, seen)) != sorted(prompts):
        raise Failure("L1-3-PROMPT", shown)
    each = got_params if isinstance(got_params, list | tuple) else [got_params]
    if not each or any(one is not params and one != params for one in each):
        raise Failure("L1-3-PARAMS", {"model got": got_params, "caller gave": params})


def check_outputs(returned: Any, llm: ScriptedLLM, prompts: list[str]) -> None:
    """Are these the model's outputs, all of them, in the prompts' order?"""
    shown = {"you returned": returned}
    if returned is None:
        raise Failure("L1-3-NONE", shown)
    if hasattr(returned, "outputs"):
        raise Failure("L1-3-SINGLE", {"you returned": Shown("one RequestOutput")})
    if not isinstance(returned, list | tuple):
        raise Failure("L1-3-OTHER", shown)
    if any(isinstance(each, str | tuple) or hasattr(each, "token_ids") for each in returned):
        raise Failure("L1-3-TEXTS", shown)
    if not all(any(each is output for output in llm.outputs) for each in returned):
        raise Failure("L1-3-OTHER", shown)
    if [each.prompt for each in returned] != prompts:
        got = [each.prompt for each in returned]
        raise Failure("L1-3-ORDER", {"prompts": prompts, "outputs for": got})


# --- TODO 4


def outputs_of(*answers: tuple[str, str, int, str]) -> list[RequestOutput]:
    """Make outputs of (prompt, text, number of tokens, finish_reason)."""
    return [
        RequestOutput(
            str(number),
            prompt,
            [1, 2, 3],
            [CompletionOutput(0, text, list(range(num_tokens)), finish_reason=reason)],
            finished=True,
        )
        for number, (prompt, text, num_tokens, reason) in enumerate(answers)
    ]


def displayed(lab: Lab, outputs: Sequence[Any]) -> list[str]:
    """Call display_outputs and return the lines that it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        call(lab, "display_outputs", "L1-4-ASYNC", list(outputs))
    return out.getvalue().splitlines()


def check_lines(lines: Sequence[str], outputs: Sequence[Any]) -> None:
    """Is each output shown, in order, by its three lines? Others may stand between."""
    if not any(line.strip() for line in lines):
        raise Failure("L1-4-NOTHING")
    rest = [_squeezed(line) for line in lines]
    for number, output in enumerate(outputs):
        for wanted in _lines_of(output):
            if wanted not in rest:
                _explain_line(wanted, output, lines, outputs, number)
            del rest[: rest.index(wanted) + 1]


def _lines_of(output: Any) -> list[str]:
    completion = output.outputs[0]
    return [
        f"Prompt: {output.prompt!r}",
        f"Generated: {completion.text!r}",
        f"Tokens: {len(completion.token_ids)} ({completion.finish_reason})",
    ]


def _squeezed(line: str) -> str:
    """Forgive spaces round the label."""
    return re.sub(r"^\s*(\w+)\s*:\s*", r"\1: ", line).rstrip()


def _explain_line(
    wanted: str, output: Any, lines: Sequence[str], outputs: Sequence[Any], number: int
) -> None:
    """Say what stands in the place of a line that is missing."""
    label = wanted.partition(":")[0]
    printed = [_squeezed(line) for line in lines]
    same = [line for line in printed if line.startswith(f"{label}: ")]
    shown = {"wanted": Shown(wanted), "you printed": texts_of(same or lines)}
    if wanted in printed:
        raise Failure("L1-4-ORDER", shown)
    if same and len(same) < len(outputs) and number >= len(same):
        raise Failure("L1-4-FEW", shown, num=len(same), want=len(outputs))
    found = same[number] if number < len(same) else ""
    if "Output(" in found or " object at " in found:
        raise Failure("L1-4-OBJECT", shown)
    if label in ("Prompt", "Generated"):
        plain = output.prompt if label == "Prompt" else output.outputs[0].text
        is_plain = f"{label}: {plain}".splitlines()[0].rstrip() == found
        raise Failure("L1-4-PLAIN" if is_plain else "L1-4-LINE", shown)
    num_tokens = re.match(r"Tokens: (\d+)", found)
    if num_tokens is None:
        raise Failure("L1-4-LINE", shown)
    is_counted = int(num_tokens.group(1)) == len(output.outputs[0].token_ids)
    raise Failure("L1-4-REASON" if is_counted else "L1-4-TOKENS", shown)


# --- the real model and the script


def live_llm(lab: Lab) -> Any:
    """Load the session's one model with TODO 1, and start the script beside it."""
    script(lab)
    if "llm" not in lab.kept:

        async def load() -> Any:
            return lab.function("create_llm")()

        lab.kept["llm"] = lab.run(load(), limit_s=backend.START_LIMIT_S)
    return lab.kept["llm"]


def script(lab: Lab) -> Script:
    """Start `python starter.py` in the background, once."""
    if "script" not in lab.kept:
        lab.kept["script"] = Script(lab.learner.path, backend.START_LIMIT_S)
        lab.at_exit(lab.kept["script"].kill)
    return lab.kept["script"]
