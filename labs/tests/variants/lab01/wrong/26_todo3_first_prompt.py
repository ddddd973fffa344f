"""3 L1-3-LOST: only the first prompt"""


def generate_completions(llm, prompts, sampling_params):
    return llm.generate(prompts[:1], sampling_params)
