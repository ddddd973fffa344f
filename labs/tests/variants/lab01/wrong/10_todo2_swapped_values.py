"""2 L1-2-VALUE: swaps two values"""


def create_sampling_params(temperature=0.0, top_p=1.0, max_tokens=64):
    return SamplingParams(temperature=top_p, top_p=temperature or 1.0, max_tokens=max_tokens)
