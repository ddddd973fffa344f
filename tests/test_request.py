"""SamplingParams and the outputs: defaults, normalisation, bounds, messages."""

import math
import pickle

import msgspec
import pytest

from wheelpit import RequestOutput, RequestOutputKind, SamplingParams, ValidationError
from wheelpit.errors import ClientError
from wheelpit.request import CompletionOutput, Logprob, SamplingType


def test_the_defaults_are_those_of_vllm():
    params = SamplingParams()
    assert (params.n, params.temperature, params.top_p, params.top_k) == (1, 1.0, 1.0, 0)
    assert (params.max_tokens, params.min_tokens, params.seed) == (16, 0, None)
    assert params.output_kind is RequestOutputKind.CUMULATIVE
    assert params.stop == []
    assert params.skip_reading_prefix_cache is False


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        ({"n": 0}, "n"),
        ({"n": 20000}, "n"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": -0.1}, "min_p"),
        ({"min_p": math.nan}, "min_p"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"frequency_penalty": math.nan}, "frequency_penalty"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": math.inf}, "repetition_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 17}, "min_tokens"),
        ({"logprobs": -2}, "logprobs"),
        ({"prompt_logprobs": -2}, "prompt_logprobs"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["a", ""]}, "stop"),
        ({"stop": "a", "detokenize": False}, "stop"),
        ({"stop_token_ids": ["a"]}, "stop_token_ids"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"bad_words": [""]}, "bad_words"),
        ({"logit_bias": {1: math.nan}}, "logit_bias"),
        ({"temperature": 0.0, "n": 2}, "n"),
    ],
)
def test_a_value_out_of_range_is_named(given, parameter):
    with pytest.raises(ValidationError) as caught:
        SamplingParams(**given)
    assert caught.value.parameter == parameter
    assert f"(parameter={parameter}, value=" in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ClientError)


@pytest.mark.parametrize(
    "given",
    [{"top_k": 1.5}, {"min_tokens": "1"}, {"max_tokens": 1.0}, {"temperature": "hot"}],
)
def test_a_wrong_type_is_a_type_error(given):
    with pytest.raises(TypeError):
        SamplingParams(**given)


def test_a_float_n_is_a_value_error_as_in_vllm():
    with pytest.raises(ValueError, match="n must be an int"):
        SamplingParams(n=1.0)


def test_greedy_switches_the_filters_off():
    params = SamplingParams(temperature=0.0, top_p=0.5, top_k=3, min_p=0.1)
    assert (params.top_p, params.top_k, params.min_p) == (1.0, 0, 0.0)
    assert params.sampling_type is SamplingType.GREEDY


def test_a_tiny_temperature_is_raised_with_a_warning(caplog):
    assert SamplingParams(temperature=0.001).temperature == 0.01
    assert "0.001" in caplog.text


def test_minus_one_means_none_or_off():
    params = SamplingParams(seed=-1, top_k=-1)
    assert params.seed is None
    assert params.top_k == 0


def test_true_logprobs_means_one():
    assert SamplingParams(logprobs=True).logprobs == 1


def test_prompt_logprobs_skip_the_prefix_cache():
    assert SamplingParams(prompt_logprobs=0).skip_reading_prefix_cache is True


def test_a_clone_is_independent_and_validated_again():
    params = SamplingParams(stop=["a"], logit_bias={1: 2.0})
    clone = params.clone()
    assert isinstance(clone.stop, list)
    clone.stop.append("b")
    assert clone.logit_bias is not None
    clone.logit_bias[2] = 1.0
    assert params.stop == ["a"]
    assert params.logit_bias == {1: 2.0}
    params.temperature = math.nan
    with pytest.raises(ValidationError):
        params.clone()


def test_from_optional_takes_none_as_default_and_clamps_the_bias():
    params = SamplingParams.from_optional(
        temperature=None, max_tokens=None, logit_bias={"7": 1000, 8: -1000}
    )
    assert params.temperature == 1.0
    assert params.max_tokens is None
    assert params.logit_bias == {7: 100.0, 8: -100.0}
    with pytest.raises(ValidationError, match="token ids"):
        SamplingParams.from_optional(logit_bias={"seven": 1})


def test_params_survive_pickle_and_msgpack():
    params = SamplingParams(stop="x", seed=-5, logit_bias={3: 1.0}, n=2, logprobs=4)
    assert pickle.loads(pickle.dumps(params)) == params
    encoded = msgspec.msgpack.encode(params)
    assert msgspec.msgpack.decode(encoded, type=SamplingParams) == params


def test_the_hold_back_is_the_longest_stop_string_but_one():
    assert SamplingParams(stop=["ab", "abcd"]).output_text_buffer_length == 3
    assert (
        SamplingParams(stop=["abcd"], include_stop_str_in_output=True).output_text_buffer_length
        == 0
    )


def test_validation_errors_survive_pickle():
    error = pickle.loads(pickle.dumps(ValidationError("no", parameter="n", value=0)))
    assert (error.message, error.parameter, error.value) == ("no", "n", 0)


def test_a_huge_value_is_shortened_in_the_message():
    assert len(str(ValidationError("no", parameter="stop", value="x" * 10**6))) < 200


def completion(index, text, token_ids, **more):
    return CompletionOutput(index, text, token_ids, None, None, **more)


def output(completions, finished=False, **more):
    return RequestOutput("r", "p", [1], None, completions, finished, **more)


def test_adding_deltas_concatenates():
    first = output([completion(0, "a", [1])])
    first.add(output([completion(0, "b", [2], finish_reason="stop")], True), aggregate=True)
    assert (first.outputs[0].text, first.outputs[0].token_ids) == ("ab", [1, 2])
    assert first.outputs[0].finished()
    assert first.finished


def test_adding_cumulative_outputs_replaces():
    first = output([completion(0, "a", [1])])
    first.add(output([completion(0, "ab", [1, 2]), completion(1, "x", [3])]), aggregate=False)
    assert [c.text for c in first.outputs] == ["ab", "x"]
    assert not first.finished


def test_adding_deltas_concatenates_logprobs():
    old = CompletionOutput(0, "a", [1], -0.5, [{1: Logprob(-0.5, 1, "a")}])
    new = CompletionOutput(0, "b", [2], -0.7, [{2: Logprob(-0.2, 1, "b")}])
    first = output([old])
    first.add(output([new]), aggregate=True)
    assert first.outputs[0].logprobs == [{1: Logprob(-0.5, 1, "a")}, {2: Logprob(-0.2, 1, "b")}]
    assert first.outputs[0].cumulative_logprob == -0.7


def test_unknown_arguments_are_ignored_with_a_warning(caplog):
    made = output([], some_new_field=1)
    assert "some_new_field" in caplog.text
    assert not hasattr(made, "some_new_field")
