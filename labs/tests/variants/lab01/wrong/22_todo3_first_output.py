"""3 L1-3-SINGLE: returns the first output only"""


def generate_completions(llm, prompts, sampling_params):
    return llm.generate(prompts, sampling_params)[0]
