"""3 L2-3-ID: makes an id of its own"""


def submit_request(engine, prompt, sampling_params, request_id):
    return engine.generate(prompt, sampling_params, generate_request_id())
