"""3: an async generator that passes outputs straight on"""


async def submit_request(engine, prompt, sampling_params, request_id):
    async for output in engine.generate(prompt, sampling_params, request_id):
        yield output
