"""3: nothing to do for no prompts"""


def generate_completions(llm, prompts, sampling_params):
    if not prompts:
        return []
    outputs = llm.generate(prompts, sampling_params)
    return list(outputs)
