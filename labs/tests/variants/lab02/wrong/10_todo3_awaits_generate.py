"""3 L2-3-AWAIT: awaits generate()"""


async def submit_request(engine, prompt, sampling_params, request_id):
    return await engine.generate(prompt, sampling_params, request_id)
