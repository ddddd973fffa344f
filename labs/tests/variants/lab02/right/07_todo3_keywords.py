"""3: keyword arguments"""


def submit_request(engine, prompt, sampling_params, request_id):
    return engine.generate(request_id=request_id, prompt=prompt, sampling_params=sampling_params)
