"""3 L1-3-DEDUP: a set of prompts"""


def generate_completions(llm, prompts, sampling_params):
    return llm.generate(list(dict.fromkeys(prompts)), sampling_params)
