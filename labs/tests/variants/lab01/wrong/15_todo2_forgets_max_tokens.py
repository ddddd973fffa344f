"""2 L1-2-VALUE: forgets max_tokens"""


def create_sampling_params(temperature=0.0, top_p=1.0, max_tokens=64):
    return SamplingParams(temperature=temperature, top_p=top_p)
