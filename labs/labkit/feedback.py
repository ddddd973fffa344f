"""What a learner is told: the labs' texts, failures as short blocks, the ladder and its summary.

All texts are in hints*.toml, a section a lab: its TODOs with three hints each, the sentence of
every failure code, and which of Python's own error messages mean which code.
"""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from labkit.probe import Call
from labkit.stacks import Place

TEXTS = sorted(Path(__file__).parent.glob("hints*.toml"))
WIDTH = 78
LABEL_WIDTH = 18
TIMELINE_WIDTH = 32


@dataclass(frozen=True, slots=True)
class Stage:
    """A TODO, or another step of the ladder ("live", "script"), which has no function."""

    id: str
    title: str
    function: str | None
    needs: tuple[str, ...]
    hints: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"TODO {self.id}" if self.function is not None else self.id.capitalize()


@dataclass(frozen=True, slots=True)
class Excuse:
    """An error of Python's that means a code of ours, in one stage."""

    stage: str
    error: str
    pattern: str
    code: str


@dataclass(frozen=True, slots=True)
class Texts:
    """All texts of one lab."""

    lab: str
    title: str
    open_is: str
    """What a TODO without code does: "fail" or "skip"."""
    reward: str
    stages: tuple[Stage, ...]
    codes: Mapping[str, str]
    excuses: tuple[Excuse, ...]

    def stage(self, stage_id: str) -> Stage:
        for stage in self.stages:
            if stage.id == stage_id:
                return stage
        raise KeyError(f"{self.lab} has no stage {stage_id!r} in hints.toml")

    def code_of(self, stage_id: str, error: BaseException) -> tuple[str, dict[str, str]] | None:
        """Return the code that an error of Python's means, and what its pattern matched."""
        kinds = {kind.__name__ for kind in type(error).__mro__}
        for excuse in self.excuses:
            if excuse.stage in (stage_id, "*") and excuse.error in kinds:
                match = re.search(excuse.pattern, str(error))
                if match:
                    return excuse.code, match.groupdict()
        return None


@cache
def load_everything() -> Mapping[str, Any]:
    """Read all sections: one a lab, and "every_lab"."""
    everything: dict[str, Any] = {}
    for path in TEXTS:
        everything |= tomllib.loads(path.read_text(encoding="utf-8"))
    return everything


@cache
def load_texts(lab: str) -> Texts:
    """Return a lab's section. Raises KeyError for a lab that has none."""
    everything = load_everything()
    section = everything[lab]
    return Texts(
        lab=lab,
        title=section["title"],
        open_is=section.get("open_is", "fail"),
        reward=section["reward"],
        stages=tuple(
            Stage(
                id=stage["id"],
                title=stage["title"],
                function=stage.get("function"),
                needs=tuple(stage.get("needs", ())),
                hints=tuple(hint.strip("\n") for hint in stage.get("hints", ())),
            )
            for stage in section["stage"]
        ),
        codes={**everything["every_lab"]["codes"], **section["codes"]},
        excuses=tuple(
            Excuse(**excuse) for excuse in [*section.get("excuse", ()), *_general(everything)]
        ),
    )


def _general(everything: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    return everything["every_lab"].get("excuse", ())


class Failure(Exception):
    """A learner's answer is wrong. What is shown is ready to print, one entry a line."""

    def __init__(
        self,
        code: str,
        shown: Mapping[str, object] | None = None,
        *,
        place: Place | None = None,
        drawing: Sequence[str] = (),
        **values: object,
    ) -> None:
        """shown: label -> value, in the order to print. values: fill the code's sentence.

        place: where; the line where the learner's function returned, if not given. drawing: lines
        to print as they are.
        """
        super().__init__(code, values)
        self.code = code
        self.shown = dict(shown or {})
        self.place = place
        self.drawing = list(drawing)
        self.values = values


def block(failure: Failure, stage: Stage, texts: Texts, where: str, more: str) -> str:
    """Return the failure as the few lines that a learner reads."""
    head = f"{stage.name}  {stage.function or stage.title}"
    tag = f"[{failure.code}]"
    lines = [f"{head}{tag:>{max(len(tag) + 2, WIDTH - len(head))}}"]
    for label, value in failure.shown.items():
        lines.append(_entry(label, value if isinstance(value, Shown) else Shown(clip(value))))
    lines += [f"    {line}" for line in failure.drawing]
    why = texts.codes[failure.code].format_map(failure.values)
    lines.append(_entry("why", Shown(" ".join(why.split()))))
    lines.append(_entry("where", Shown(where)))
    if more:
        lines.append(_entry("more", Shown(more)))
    return ascii_only("\n".join(lines))


class Shown(str):
    """Text to print as it is; everything else is printed as Python would show it."""


def _entry(label: str, text: str) -> str:
    first = f"  {label + ':':<{LABEL_WIDTH}}"
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def clip(value: object, limit: int = 56) -> str:
    """Return the value as Python shows it, cut."""
    text = ascii(value)
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def texts_of(outputs: Sequence[str]) -> Shown:
    """Return a stream's texts in a row: 'Async' | 'Async io'."""
    shown = [clip(text, 40) for text in outputs[:4]]
    return Shown(" | ".join(shown) + (" | ..." if len(outputs) > 4 else ""))


def ascii_only(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def timeline(calls: Sequence[Call], num_events: int) -> list[str]:
    """Draw when each request began and ended, a row each, counted in events."""
    rows = ["requests over time (# = running)"]
    for call in calls[:8]:
        began = _column(call.started, num_events)
        ended = max(began + 1, _column(call.ended or num_events, num_events))
        bar = " " * began + "#" * (ended - began)
        name = ascii_only(str(call.request_id))[:20]
        rows.append(f"  {name:<20} |{bar:<{TIMELINE_WIDTH}}|")
    return rows


def _column(event: int | None, num_events: int) -> int:
    if event is None:
        return TIMELINE_WIDTH - 1
    return round((event - 1) * TIMELINE_WIDTH / max(num_events, 1))


@dataclass
class Ladder:
    """What became of each stage of a lab in this run. Written by the test session."""

    texts: Texts
    states: dict[str, str] = field(default_factory=dict)
    """Stage -> "ok", "FIX", "open", "waits", "skipped"; one that was not selected is not in it."""
    codes: dict[str, str] = field(default_factory=dict)
    """Stage -> the code it failed with."""
    places: dict[str, str] = field(default_factory=dict)
    """Stage -> "starter.py:64"."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Stage -> why it was skipped."""
    blocks: dict[str, str] = field(default_factory=dict)
    """Stage -> what the learner was told."""

    def fail(self, stage: str, code: str, place: str, block: str) -> None:
        # Where what is not started is skipped, an open TODO that runs is one that was begun.
        is_open = code == "LAB-OPEN" and self.texts.open_is == "fail"
        self.states[stage] = "open" if is_open else "FIX"
        self.codes[stage] = code
        self.places[stage] = place
        self.blocks[stage] = block

    def waits_for(self, stage: Stage) -> list[str]:
        """Return the stages that must pass first and have not."""
        return [need for need in stage.needs if self.states.get(need) != "ok"]

    def summary(self, target: str) -> list[str]:
        """Return the ladder in a line, and what to do next."""
        shown = [
            f"[{stage.id} {self.states[stage.id]}]"
            for stage in self.texts.stages
            if stage.id in self.states
        ]
        lines = [f"Lab {self.texts.lab[-2:]}: {' '.join(shown)}"]
        for stage_id, reason in self.reasons.items():
            lines.append(f"{self.texts.stage(stage_id).name} was skipped: {reason}")
        next_ones = ("FIX", "open") if self.texts.open_is == "fail" else ("FIX",)
        for stage in self.texts.stages:
            if self.states.get(stage.id) in next_ones:
                lines.append(f"Next: {stage.name}, {self.places.get(stage.id, target)}")
                return lines
        if unstarted := [stage for stage, state in self.states.items() if state == "open"]:
            names = ", ".join(f"{stage} ({self.places[stage]})" for stage in unstarted)
            lines.append(f"Not started, in any order: {names}")
        if all(self.states.get(stage.id) == "ok" for stage in self.texts.stages):
            lines.append(self.texts.reward)
        return lines
