"""2 L1-2-TYPE: returns a dict"""


def create_sampling_params(temperature=0.0, top_p=1.0, max_tokens=64):
    return {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
