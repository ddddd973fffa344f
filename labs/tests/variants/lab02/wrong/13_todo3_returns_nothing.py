"""3 L2-3-NONE: calls generate, returns nothing"""


def submit_request(engine, prompt, sampling_params, request_id):
    engine.generate(prompt, sampling_params, request_id)
