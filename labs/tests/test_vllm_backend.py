"""LAB_BACKEND=vllm, on a stand-in: vLLM's names and signatures, none of its computing."""

import pytest
from learner import Done, copy_lab, grade, run
from variant import HERE, LAB02, load, merged

VLLM = {"LAB_BACKEND": "vllm", "PYTHONPATH": str(HERE / "stand_in")}
STAGES = ("1", "2", "3", "4a", "4b", "5", "live", "script")


@pytest.fixture
def folder(tmp_path):
    folder = copy_lab(tmp_path)
    (folder / "starter.py").write_text((folder / "solution.py").read_text(encoding="utf-8"))
    return folder


def test_the_solution_passes_every_stage(folder):
    done = grade(folder, "-v", **VLLM)
    assert done.states == dict.fromkeys(STAGES, "ok"), done.out
    assert "labs: LAB_BACKEND=vllm" in done.out


def test_wheelpit_is_not_imported(folder):
    code = (
        "import sys, starter; print(starter.AsyncLLMEngine.__module__); "
        "print([name for name in sys.modules if name.startswith('wheelpit')])"
    )
    done = run(folder, "-c", code, **VLLM)
    assert done.out.splitlines() == ["vllm", "[]"], done.err


@pytest.mark.parametrize("code", ["L2-1-OFFLINE", "L2-1-CONSTRUCTOR"])
def test_wrong_answers_get_the_same_sentences(folder, code):
    [variant] = [each for each in load("lab02", "wrong") if each.code == code]
    solution = (LAB02 / "solution.py").read_text(encoding="utf-8")
    (folder / "starter.py").write_text(merged(solution, variant.path), encoding="utf-8")
    done: Done = grade(folder, "-k", f"todo{variant.stage}", **VLLM)
    assert done.codes == {variant.stage: code}, done.out


def test_the_script_runs(folder):
    done = run(folder, "starter.py", **VLLM)
    assert (done.status, done.err) == (0, "")
    assert len(done.out.splitlines()) == 17


def test_another_backend_is_refused(folder):
    done = run(folder, "starter.py", LAB_BACKEND="torch")
    assert "LAB_BACKEND is 'torch', must be one of: native, vllm" in done.err
