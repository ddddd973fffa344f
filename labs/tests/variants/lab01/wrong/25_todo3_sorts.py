"""3 L1-3-ORDER: sorts the prompts"""


def generate_completions(llm, prompts, sampling_params):
    return llm.generate(sorted(prompts), sampling_params)
