"""3 L1-3-PARAMS: forgets the parameters"""


def generate_completions(llm, prompts, sampling_params):
    return llm.generate(prompts)
