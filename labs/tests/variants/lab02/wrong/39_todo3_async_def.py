"""3 L2-3-ASYNCDEF: async def with return"""


async def submit_request(engine, prompt, sampling_params, request_id):
    return engine.generate(prompt, sampling_params, request_id)
