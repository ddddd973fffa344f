"""3: parameters for each prompt"""


def generate_completions(llm, prompts, sampling_params):
    return llm.generate(list(prompts), [sampling_params] * len(prompts))
