"""Every wrong answer is rejected in its stage, with its sentence; every right one is accepted."""

import pytest
from variant import Variant, load

WRONG, RIGHT = load("lab02", "wrong"), load("lab02", "right")

STAGES = ("1", "2", "3", "4a", "4b", "5")
NEEDS = {"4b": {"3"}, "5": {"2", "3", "4a"}}


@pytest.mark.parametrize("variant", WRONG, ids=lambda variant: variant.name)
def test_a_wrong_answer_fails_in_its_stage_with_its_code(verdicts, variant: Variant):
    verdict = verdicts[variant.name]
    assert verdict["codes"] == {variant.stage: variant.code}
    for stage in STAGES:
        waits = variant.stage in NEEDS.get(stage, ())
        expected = "FIX" if stage == variant.stage else "waits" if waits else "ok"
        assert verdict["states"][stage] == expected


@pytest.mark.parametrize("variant", RIGHT, ids=lambda variant: variant.name)
def test_a_right_answer_passes(verdicts, variant: Variant):
    verdict = verdicts[variant.name]
    assert verdict["codes"] == {}
    assert verdict["states"] == dict.fromkeys(STAGES, "ok")


def test_the_lab_was_designed_against_27_wrong_answers_and_there_are_more():
    """Some of the 27 have two forms, 14a and 14b."""
    listed = {variant.name.split("_")[0].rstrip("ab") for variant in WRONG if variant.is_listed}
    assert listed == {f"{number:02}" for number in range(1, 28)}
    assert len([variant for variant in WRONG if not variant.is_listed]) >= 10


def test_each_variant_is_about_the_function_of_its_stage():
    from labkit.feedback import load_texts

    for variant in [*WRONG, *RIGHT]:
        function = load_texts("lab02").stage(variant.stage).function
        assert f"def {function}(" in variant.path.read_text(encoding="utf-8"), variant.name
