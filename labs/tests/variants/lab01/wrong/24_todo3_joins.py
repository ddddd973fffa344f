"""3 L1-3-JOINED: joins the prompts"""


def generate_completions(llm, prompts, sampling_params):
    return llm.generate("\n".join(prompts), sampling_params)
