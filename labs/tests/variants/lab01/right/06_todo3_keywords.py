"""3: keywords, and no progress bar"""


def generate_completions(llm, prompts, sampling_params):
    return llm.generate(prompts=prompts, sampling_params=sampling_params, use_tqdm=False)
