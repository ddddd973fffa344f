"""3 L2-3-MISSING: leaves the id out"""


def submit_request(engine, prompt, sampling_params, request_id):
    return engine.generate(prompt, sampling_params)
