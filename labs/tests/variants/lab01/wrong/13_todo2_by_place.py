"""2 L1-2-KEYWORDS: gives the values by their place"""


def create_sampling_params(temperature=0.0, top_p=1.0, max_tokens=64):
    return SamplingParams(temperature, top_p, max_tokens)
