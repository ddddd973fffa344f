"""3 L1-3-SWAPPED: the arguments in the wrong order"""


def generate_completions(llm, prompts, sampling_params):
    return llm.generate(sampling_params, prompts)
