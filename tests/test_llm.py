"""LLM: the book, the core and admission without a process, and what is left after each call."""

from __future__ import annotations

import pytest

from tests.tiny_model import make_model_folder
from wheelpit import LLM, SamplingParams

GREEDY = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(make_model_folder(tmp_path_factory.mktemp("offline")))


def start(folder, **args):
    return LLM(folder, load_format="dummy", num_gpu_blocks_override=32, **args)


def assert_empty(llm):
    admission = llm._admission
    assert (admission.num_queued, admission.num_running, admission.num_accounts) == (0, 0, 0)
    assert len(llm._book) == 0
    assert not llm._core.has_work


def test_a_call_leaves_nothing_behind(folder):
    llm = start(folder, scheduling_policy="fair", max_num_seqs=2)
    outputs = llm.generate([[5, 6], [7, 8], [9]], GREEDY, use_tqdm=False)
    assert [len(output.outputs[0].token_ids) for output in outputs] == [4, 4, 4]
    assert_empty(llm)


def test_one_bad_prompt_leaves_nothing_of_the_good_ones(folder):
    llm = start(folder)
    with pytest.raises(ValueError, match="cannot be empty"):
        llm.generate([[5, 6], [7, 8], []], GREEDY, use_tqdm=False)
    assert_empty(llm)


def test_an_interrupted_call_leaves_nothing_behind(folder, monkeypatch):
    llm = start(folder)
    steps = iter(range(2))
    step = llm._core.step

    def interrupted():
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(llm._core, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llm.generate([[5, 6], [7, 8]], GREEDY, use_tqdm=False)
    assert_empty(llm)


def test_the_priority_policy_decides_and_another_warns_once(folder, caplog):
    ranked = start(folder, scheduling_policy="priority", max_num_seqs=1)
    order = []
    finish = ranked._book.report
    ranked._book.report = lambda record: (order.append(record.request_id), finish(record))
    ranked.generate([[5], [6], [7]], GREEDY, use_tqdm=False, priority=[5, 1, 3])
    assert order == ["1", "2", "0"]
    assert not caplog.messages
    plain = start(folder)
    for _ in range(2):
        plain.generate([[5], [6]], GREEDY, use_tqdm=False, priority=[0, 3])
    assert [message for message in caplog.messages if "priority" in message] == [
        "priority=3 has no effect under the fcfs policy: use scheduling_policy=priority"
    ]
