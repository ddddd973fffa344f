"""3 L1-3-SWALLOWED: except Exception: return []"""


def generate_completions(llm, prompts, sampling_params):
    try:
        return llm.generate(prompts, sampling_params)
    except Exception:
        return []
