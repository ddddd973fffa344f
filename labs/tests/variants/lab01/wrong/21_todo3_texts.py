"""3 L1-3-TEXTS: takes the texts out too early"""


def generate_completions(llm, prompts, sampling_params):
    return [output.outputs[0].text for output in llm.generate(prompts, sampling_params)]
