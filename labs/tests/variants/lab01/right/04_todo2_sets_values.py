"""2: makes it, then sets the values"""


def create_sampling_params(temperature=0.0, top_p=1.0, max_tokens=64):
    params = SamplingParams()
    params.temperature = temperature
    params.top_p = top_p
    params.max_tokens = max_tokens
    return params
