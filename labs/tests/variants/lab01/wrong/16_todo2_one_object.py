"""2 L1-2-SHARED: changes one object for all"""

_params = SamplingParams()


def create_sampling_params(temperature=0.0, top_p=1.0, max_tokens=64):
    _params.temperature, _params.top_p, _params.max_tokens = temperature, top_p, max_tokens
    return _params
