"""3 L1-3-ONEBYONE: a loop, one prompt at a time"""


def generate_completions(llm, prompts, sampling_params):
    outputs = []
    for prompt in prompts:
        outputs += llm.generate([prompt], sampling_params)
    return outputs
