"""3 L1-3-METHOD: a method that is not there"""


def generate_completions(llm, prompts, sampling_params):
    return llm.complete(prompts, sampling_params)
