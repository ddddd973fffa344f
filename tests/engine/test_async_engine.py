"""AsyncLLMEngine against a real engine process whose runner is fake."""

from __future__ import annotations

import asyncio
import gc
import os
import signal

import pytest

from tests.fake_worker import EXITS, HANGS, RAISES, fake_worker
from tests.fakes import FakeRunner
from wheelpit import (
    AsyncEngineArgs,
    AsyncLLM,
    AsyncLLMEngine,
    EngineDeadError,
    EngineGenerateError,
    EngineStartError,
    ModelLoadError,
    RequestOutputKind,
    SamplingParams,
    ValidationError,
)

EXPECTED = FakeRunner(vocab_size=259)


def params(**given):
    return SamplingParams(
        **{"temperature": 0.0, "max_tokens": 8, "ignore_eos": True, "seed": 0, **given}
    )


async def collect(engine, prompt, sampling_params, request_id="r"):
    return [output async for output in engine.generate(prompt, sampling_params, request_id)]


async def first_of(generator):
    return await generator.__anext__()


async def until(condition):
    """Wait for what another process brings about; the test's own timeout ends it."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.002)


async def until_idle(engine):
    """Wait until the engine process says that it holds nothing any more."""
    assert not engine.has_unfinished_requests()
    await until(
        lambda: not (engine.stats().engine.num_running or engine.stats().engine.num_waiting)
    )
    assert engine.stats().engine.kv_cache_usage == 0.0


def test_the_two_names_are_one_class():
    assert AsyncLLM is AsyncLLMEngine


async def test_a_request_streams_its_tokens_and_finishes_once(engine):
    outputs = await collect(engine, [10, 11, 12], params(seed=5))
    assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
    final = outputs[-1]
    assert final.request_id == "r"
    assert final.prompt is None
    assert final.prompt_token_ids == [10, 11, 12]
    assert final.outputs[0].token_ids == EXPECTED.expected([10, 11, 12], 8, seed=5)
    assert final.outputs[0].finish_reason == "length"
    assert final.outputs[0].stop_reason is None
    assert final.num_cached_tokens == 0
    assert final.metrics.num_generation_tokens == 8


async def test_text_and_dictionaries_are_prompts_too(engine):
    tokenizer = engine.get_tokenizer()
    ids = tokenizer.encode("hey")
    for prompt in ("hey", {"prompt": "hey"}, {"prompt_token_ids": ids, "prompt": "hey"}):
        final = (await collect(engine, prompt, params()))[-1]
        assert final.prompt == "hey"
        assert final.prompt_token_ids == ids
        assert final.outputs[0].text == tokenizer.decode(final.outputs[0].token_ids)


async def test_deltas_add_up_to_the_cumulative_output(engine):
    whole = (await collect(engine, "abc", params(max_tokens=40)))[-1].outputs[0]
    deltas = await collect(
        engine, "abc", params(max_tokens=40, output_kind=RequestOutputKind.DELTA)
    )
    parts = [output.outputs[0] for output in deltas]
    assert [token_id for part in parts for token_id in part.token_ids] == whole.token_ids
    assert "".join(part.text for part in parts) == whole.text


async def test_final_only_yields_once(engine):
    outputs = await collect(engine, "abc", params(output_kind=RequestOutputKind.FINAL_ONLY))
    assert len(outputs) == 1
    assert outputs[0].finished
    assert len(outputs[0].outputs[0].token_ids) == 8


async def test_an_unread_stream_is_merged_into_one_output(slow_engine):
    generator = slow_engine.generate(
        "abc", params(max_tokens=6, output_kind=RequestOutputKind.DELTA), "r"
    )
    first = await first_of(generator)
    await until(lambda: not slow_engine.has_unfinished_requests())
    rest = [output async for output in generator]
    assert len(rest) == 1
    assert len(first.outputs[0].token_ids) + len(rest[0].outputs[0].token_ids) == 6
    assert rest[0].finished


async def test_cumulative_outputs_do_not_change_after_the_yield(engine):
    outputs = await collect(engine, "abc", params(max_tokens=30))
    lengths = [len(output.outputs[0].token_ids) for output in outputs]
    assert lengths == sorted(set(lengths))
    assert lengths[-1] == 30


async def test_many_requests_run_at_once(engine):
    prompts = [[10 + i, 20, 30] for i in range(50)]
    finals = await asyncio.gather(
        *(
            collect(engine, prompt, params(max_tokens=20, seed=i), f"r{i}")
            for i, prompt in enumerate(prompts)
        )
    )
    for i, (prompt, outputs) in enumerate(zip(prompts, finals, strict=True)):
        assert outputs[-1].outputs[0].token_ids == EXPECTED.expected(prompt, 20, seed=i)
    assert not engine.has_unfinished_requests()


async def test_n_completions_are_independent_and_end_together(engine):
    outputs = await collect(engine, [10, 11], params(temperature=1.0, n=3, seed=4, max_tokens=5))
    assert [output.finished for output in outputs].count(True) == 1
    seen = {}
    for output in outputs:
        for completion in output.outputs:
            seen[completion.index] = completion
    assert sorted(seen) == [0, 1, 2]
    for index, completion in seen.items():
        assert completion.token_ids == EXPECTED.expected([10, 11], 5, seed=4 + index)
        assert completion.finish_reason == "length"


async def test_n_completions_in_one_final_output_are_in_order(engine):
    (output,) = await collect(
        engine,
        [10, 11],
        params(temperature=1.0, n=4, seed=4, output_kind=RequestOutputKind.FINAL_ONLY),
    )
    assert [completion.index for completion in output.outputs] == [0, 1, 2, 3]


async def test_unseeded_requests_differ_but_the_program_repeats(make_engine):
    async def run(engine):
        request = params(temperature=1.0, seed=None)
        return [
            (await collect(engine, [10, 11], request))[-1].outputs[0].token_ids for _ in range(3)
        ]

    first, second = await run(make_engine()), await run(make_engine())
    assert first == second
    assert len({tuple(ids) for ids in first}) == 3
    assert await run(make_engine(seed=1)) != first


async def test_a_stop_string_cuts_the_text_and_frees_the_engine(engine):
    whole = (await collect(engine, "abc", params(max_tokens=60)))[-1].outputs[0]
    stop = whole.text[20:23]
    cut = (await collect(engine, "abc", params(max_tokens=60, stop=[stop])))[-1].outputs[0]
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.stop_reason == stop
    await until_idle(engine)


async def test_a_stop_token_is_in_the_ids_but_not_in_the_text(engine):
    ids = EXPECTED.expected([10, 11], 8)
    final = (await collect(engine, [10, 11], params(seed=0, stop_token_ids=[ids[3]])))[-1]
    completion = final.outputs[0]
    index = ids.index(ids[3])
    assert completion.token_ids == ids[: index + 1]
    assert completion.text == engine.get_tokenizer().decode(ids[:index])
    assert (completion.finish_reason, completion.stop_reason) == ("stop", ids[3])


async def test_detokenize_false_leaves_the_text_empty(engine):
    final = (await collect(engine, "abc", params(detokenize=False)))[-1]
    assert final.outputs[0].text == ""
    assert len(final.outputs[0].token_ids) == 8


async def test_logprobs_come_with_the_tokens(engine):
    final = (await collect(engine, "abc", params(logprobs=2, prompt_logprobs=1)))[-1]
    completion = final.outputs[0]
    assert len(completion.logprobs) == 8
    for token_id, position in zip(completion.token_ids, completion.logprobs, strict=True):
        assert next(iter(position)) == token_id
        assert 1 <= len(position) <= 3
        assert position[token_id].decoded_token is not None
    assert completion.cumulative_logprob == pytest.approx(-0.5 * 8)
    assert final.prompt_logprobs[0] is None
    assert len(final.prompt_logprobs) == 3


async def test_delta_delivers_prompt_logprobs_once_and_no_logprobs_twice(slow_engine):
    sampling = params(logprobs=1, prompt_logprobs=1, output_kind=RequestOutputKind.DELTA)
    generator = slow_engine.generate("abc", sampling, "r")
    outputs = [await first_of(generator)]
    await slow_engine.abort("r")
    outputs += [output async for output in generator]
    assert outputs[0].prompt_logprobs is not None
    assert all(output.prompt_logprobs is None for output in outputs[1:])
    for output in outputs:
        assert len(output.outputs[0].logprobs) == len(output.outputs[0].token_ids)


# --- laziness and validation


async def test_nothing_happens_before_the_first_anext(engine):
    generator = engine.generate("abc", params(), "r")
    assert not engine.has_unfinished_requests()
    await generator.aclose()
    bad = engine.generate([], params(), "r")
    with pytest.raises(ValueError, match="cannot be empty"):
        await first_of(bad)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "The decoder prompt cannot be empty"),
        ([], "The decoder prompt cannot be empty"),
        ({"prompt_token_ids": []}, "The decoder prompt cannot be empty"),
        ([5] * 257, r"\(length 257\) is longer than the maximum model length of 256"),
        ([5] * 256, "plus the number of requested output tokens"),
        ([259], "Token id 259 is out of vocabulary"),
        ([-1], "Token id -1 is out of vocabulary"),
        ("x" * 100_000, "maximum context length is 256 tokens"),
        ({"prompt": "a", "multi_modal_data": {"image": 1}}, "multi_modal_data"),
    ],
)
async def test_a_bad_prompt_is_a_value_error(engine, prompt, message):
    with pytest.raises(ValueError, match=message):
        await collect(engine, prompt, params())
    assert not engine.has_unfinished_requests()


@pytest.mark.parametrize(
    "prompt", [None, 5, {"text": "a"}, {"prompt": 3}, ["a", "b"], {"prompt_token_ids": "abc"}]
)
async def test_a_malformed_prompt_is_a_type_error_inside_an_engine_error(engine, prompt):
    with pytest.raises(EngineGenerateError) as caught:
        await collect(engine, prompt, params())
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize(
    "given",
    [
        {"logprobs": 21},
        {"prompt_logprobs": -1},
        {"logit_bias": {259: 1.0}},
        {"allowed_token_ids": [1000]},
        {"stop_token_ids": [1000]},
    ],
)
async def test_what_the_model_cannot_do_is_a_validation_error(engine, given):
    with pytest.raises(ValidationError) as caught:
        await collect(engine, "abc", params(**given))
    assert caught.value.parameter == next(iter(given))


async def test_the_callers_params_are_never_changed(engine):
    given = params(max_tokens=None, stop=["zz"])
    before = given.clone()
    await collect(engine, "abc", given)
    assert given == before


async def test_max_tokens_none_runs_to_the_end_of_the_context(engine):
    final = (await collect(engine, [5] * 200, params(max_tokens=None)))[-1]
    assert len(final.outputs[0].token_ids) == 56
    assert final.outputs[0].finish_reason == "length"


async def test_max_tokens_past_the_context_ends_with_length(engine):
    final = (await collect(engine, [5] * 250, params(max_tokens=100)))[-1]
    assert len(final.outputs[0].token_ids) == 6
    assert final.outputs[0].finish_reason == "length"


# --- abort, cancellation, early exit


async def test_abort_yields_one_last_output_with_all_tokens_so_far(slow_engine):
    generator = slow_engine.generate("abc", params(max_tokens=200), "r")
    first = await first_of(generator)
    await slow_engine.abort("r")
    rest = [output async for output in generator]
    assert len(rest) == 1
    final = rest[0].outputs[0]
    assert rest[0].finished
    assert (final.finish_reason, final.stop_reason) == ("abort", None)
    assert len(final.token_ids) >= len(first.outputs[0].token_ids)
    await slow_engine.abort("r")
    await slow_engine.abort(["unknown", "r"])
    await until_idle(slow_engine)


async def test_abort_hits_every_request_of_that_id_and_no_other(slow_engine):
    tasks = [
        asyncio.create_task(collect(slow_engine, "abc", params(max_tokens=200), "same"))
        for _ in range(3)
    ]
    other = asyncio.create_task(collect(slow_engine, "abc", params(max_tokens=4), "other"))
    await until(lambda: slow_engine.stats().engine.num_running >= 4)
    await slow_engine.abort("same")
    for outputs in await asyncio.gather(*tasks):
        assert outputs[-1].outputs[0].finish_reason == "abort"
    assert (await other)[-1].outputs[0].finish_reason == "length"


async def test_final_only_abort_keeps_the_partial_output(slow_engine):
    sampling = params(max_tokens=200, output_kind=RequestOutputKind.FINAL_ONLY)
    task = asyncio.create_task(collect(slow_engine, "abc", sampling))
    before = slow_engine.stats().num_generation_tokens
    await until(lambda: slow_engine.stats().num_generation_tokens >= before + 3)
    await slow_engine.abort("r")
    (output,) = await task
    assert output.outputs[0].finish_reason == "abort"
    assert len(output.outputs[0].token_ids) >= 3


async def test_cancelling_the_consumer_frees_everything(slow_engine):
    tasks = [
        asyncio.create_task(collect(slow_engine, "abc", params(max_tokens=200), f"r{i}"))
        for i in range(20)
    ]
    before = slow_engine.stats().num_generation_tokens
    await until(lambda: slow_engine.stats().num_generation_tokens >= before + 20)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert not slow_engine.has_unfinished_requests()
    await until_idle(slow_engine)


async def test_breaking_out_frees_at_once_after_gather(slow_engine):
    async def take_two(i):
        count = 0
        async for _ in slow_engine.generate("abc", params(max_tokens=200), f"r{i}"):
            count += 1
            if count == 2:
                break

    await asyncio.gather(*(take_two(i) for i in range(20)))
    assert not slow_engine.has_unfinished_requests()
    await until_idle(slow_engine)


async def test_add_request_gives_a_collector(engine):
    collector = await engine.add_request("r", "abc", params(max_tokens=3))
    assert collector.request_id.startswith("r-")
    output = await collector.get()
    while not output.finished:
        output = await collector.get()
    assert len(output.outputs[0].token_ids) == 3
    assert collector.get_nowait() is None
    other = await engine.add_request("s", "abc", params(max_tokens=200))
    await engine.abort(other.request_id, internal=True)
    assert (await other.get()).outputs[0].finish_reason == "abort"
    other.close()


async def test_paused_requests_wait_until_resumed(slow_engine):
    running = asyncio.create_task(collect(slow_engine, "abc", params(max_tokens=200), "a"))
    await until(lambda: slow_engine.has_unfinished_requests())
    await slow_engine.pause_generation()
    assert (await running)[-1].outputs[0].finish_reason == "abort"
    assert await slow_engine.is_paused()
    held = asyncio.create_task(collect(slow_engine, "abc", params(max_tokens=2), "b"))
    await asyncio.sleep(0.05)
    assert not held.done()
    await slow_engine.resume_generation()
    assert (await held)[-1].finished
    waited = asyncio.create_task(collect(slow_engine, "abc", params(max_tokens=3), "c"))
    await until(lambda: slow_engine.has_unfinished_requests())
    await slow_engine.pause_generation(mode="wait")
    assert (await waited)[-1].outputs[0].finish_reason == "length"
    await slow_engine.resume_generation()


async def test_the_prefix_cache_is_used_and_can_be_reset(engine):
    prompt = list(range(3, 203))
    await engine.reset_prefix_cache()
    assert (await collect(engine, prompt, params()))[-1].num_cached_tokens == 0
    assert (await collect(engine, prompt, params()))[-1].num_cached_tokens == 192
    assert await engine.reset_prefix_cache() is True
    assert (await collect(engine, prompt, params()))[-1].num_cached_tokens == 0


async def test_different_salts_share_no_cache(engine):
    ids = list(range(3, 103))
    salted = {"prompt_token_ids": ids, "cache_salt": "a"}
    await collect(engine, salted, params())
    assert (await collect(engine, salted, params()))[-1].num_cached_tokens == 96
    salted["cache_salt"] = "b"
    assert (await collect(engine, salted, params()))[-1].num_cached_tokens == 0


# --- faults


async def test_a_fault_in_a_step_ends_one_request_only(engine):
    good = asyncio.create_task(collect(engine, "abc", params(max_tokens=60), "good"))
    bad = await collect(engine, [RAISES, 5], params(), "bad")
    assert bad[-1].outputs[0].finish_reason == "error"
    assert (await good)[-1].outputs[0].finish_reason == "length"
    await engine.check_health()


async def test_a_dead_process_reaches_every_waiter_and_every_later_call(make_engine):
    engine = make_engine(worker=fake_worker(step_ms=20), max_restarts=0)
    waiting = asyncio.create_task(collect(engine, "abc", params(max_tokens=200)))
    await until(lambda: engine.has_unfinished_requests())
    with pytest.raises(EngineDeadError) as caught:
        await collect(engine, [EXITS, 5], params())
    assert "exited with status 7" in str(caught.value.__cause__)
    with pytest.raises(EngineDeadError):
        await waiting
    assert engine.errored
    assert not engine.is_running
    with pytest.raises(EngineDeadError):
        await collect(engine, "abc", params())
    with pytest.raises(EngineDeadError):
        await engine.check_health()


async def test_shutdown_resolves_every_waiter_even_with_a_hung_step(make_engine):
    engine = make_engine()
    tasks = [
        asyncio.create_task(collect(engine, prompt, params(max_tokens=100), str(i)))
        for i, prompt in enumerate([[HANGS, 5], "abc", "abd"])
    ]
    await until(lambda: engine.stats().num_requests >= 1)
    pid = engine.engine_pid
    engine.shutdown()
    engine.shutdown()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(result, EngineDeadError) for result in results)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_del_ends_the_process(make_engine, model_folder):
    engine = AsyncLLMEngine.launch(AsyncEngineArgs(model=str(model_folder)), worker=fake_worker())
    engine.wait_until_ready()
    await collect(engine, "abc", params())
    pid = engine.engine_pid
    del engine
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_an_embedded_engine_leaves_signals_to_its_program(make_engine):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    engine = make_engine()
    await collect(engine, "abc", params())
    os.kill(engine.engine_pid, signal.SIGKILL)
    await collect(engine, "abc", params())
    assert [signal.getsignal(number) for number in numbers] == before
    engine.shutdown()
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_start_failure_has_its_own_exception(make_engine):
    with pytest.raises(ModelLoadError, match="broken on purpose"):
        make_engine(worker=fake_worker(fails="clearly"))
    with pytest.raises(EngineStartError, match="KeyError: 'odd'"):
        make_engine(worker=fake_worker(fails="oddly"))
    with pytest.raises(EngineStartError, match="exited with status 5"):
        make_engine(worker=fake_worker(fails="silently"))


async def test_a_killed_process_is_named_with_its_signal(make_engine):
    engine = make_engine(max_restarts=0)
    await collect(engine, "abc", params())
    os.kill(engine.engine_pid, signal.SIGKILL)
    await until(lambda: engine.errored)
    with pytest.raises(EngineDeadError) as caught:
        await collect(engine, "abc", params())
    assert "signal 9" in str(caught.value.__cause__)


# --- loops


def test_one_engine_serves_several_asyncio_runs(engine):
    for _ in range(3):
        outputs = asyncio.run(collect(engine, "abc", params()))
        assert outputs[-1].finished


def test_a_second_loop_at_the_same_time_is_refused_clearly(engine):
    async def main():
        await collect(engine, "abc", params())

        def other():
            asyncio.run(collect(engine, "abc", params()))

        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(other)

    asyncio.run(main())


def test_it_works_under_uvloop(engine):
    import uvloop

    async def main():
        return await asyncio.gather(
            *(collect(engine, "abc", params(max_tokens=20), str(i)) for i in range(10))
        )

    for outputs in uvloop.run(main()):
        assert outputs[-1].finished


async def test_two_megabytes_of_requests_do_not_block_the_socket(engine):
    prompts = [[5 + i % 100] * 250 for i in range(2000)]
    finals = await asyncio.gather(
        *(collect(engine, prompt, params(max_tokens=2), str(i)) for i, prompt in enumerate(prompts))
    )
    assert all(outputs[-1].finished for outputs in finals)
    await until_idle(engine)
