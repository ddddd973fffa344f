"""3 L1-3-NONE: forgets to return them"""


def generate_completions(llm, prompts, sampling_params):
    llm.generate(prompts, sampling_params)
