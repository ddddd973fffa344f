"""Every wrong answer is rejected in its stage, with its sentence; every right one is accepted."""

import pytest
from labkit.feedback import load_texts
from variant import Variant, definitions, labs, load, stages_to_grade
from verdicts import ENGINE_STAGES

WRONG = [variant for lab in labs() for variant in load(lab, "wrong")]
RIGHT = [variant for lab in labs() for variant in load(lab, "right")]


def name(variant: Variant) -> str:
    return f"{variant.lab}-{variant.name}"


def expected_states(variant: Variant) -> dict[str, str]:
    """Say what must become of each stage if only this answer of the solution is replaced."""
    states: dict[str, str] = {}
    graded = stages_to_grade([variant])
    for stage in load_texts(variant.lab).stages:
        if stage.id not in ENGINE_STAGES and graded in ("contract", stage.id):
            is_right = variant.code is None or stage.id != variant.stage
            waits = any(states[need] != "ok" for need in stage.needs)
            states[stage.id] = "waits" if waits else "ok" if is_right else "FIX"
    return states


@pytest.mark.parametrize("variant", WRONG, ids=name)
def test_a_wrong_answer_fails_in_its_stage_with_its_code(verdicts, variant: Variant):
    verdict = verdicts[variant.lab, variant.name]
    assert verdict["codes"] == {variant.stage: variant.code}
    assert verdict["states"] == expected_states(variant)
    assert f"[{variant.code}]" in verdict["blocks"][variant.stage].splitlines()[0]


@pytest.mark.parametrize("variant", RIGHT, ids=name)
def test_a_right_answer_passes(verdicts, variant: Variant):
    verdict = verdicts[variant.lab, variant.name]
    assert verdict["codes"] == {}
    assert verdict["states"] == expected_states(variant)


def test_lab_02_was_designed_against_27_wrong_answers_and_there_are_more():
    """Some of the 27 have two forms, 14a and 14b."""
    wrong = load("lab02", "wrong")
    listed = {variant.name.split("_")[0].rstrip("ab") for variant in wrong if variant.is_listed}
    assert listed == {f"{number:02}" for number in range(1, 28)}
    assert len([variant for variant in wrong if not variant.is_listed]) >= 10


@pytest.mark.parametrize("variant", [*WRONG, *RIGHT], ids=name)
def test_a_variant_is_about_the_function_of_its_stage(variant):
    function = load_texts(variant.lab).stage(variant.stage).function
    assert function in definitions(variant.path.read_text(encoding="utf-8"))
