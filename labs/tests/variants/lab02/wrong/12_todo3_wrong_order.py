"""3 L2-3-ORDER: the arguments in the wrong order"""


def submit_request(engine, prompt, sampling_params, request_id):
    return engine.generate(request_id, prompt, sampling_params)
