"""3 L1-3-PROMPT: changes the prompts"""


def generate_completions(llm, prompts, sampling_params):
    return llm.generate([prompt.title() for prompt in prompts], sampling_params)
