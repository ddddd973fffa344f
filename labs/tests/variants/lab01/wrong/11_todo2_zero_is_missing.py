"""2 L1-2-ZERO: takes 0 for missing"""


def create_sampling_params(temperature=0.0, top_p=1.0, max_tokens=64):
    return SamplingParams(temperature=temperature or 1.0, top_p=top_p, max_tokens=max_tokens)
