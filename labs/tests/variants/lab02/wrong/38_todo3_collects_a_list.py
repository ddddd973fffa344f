"""3 L2-3-NOTSTREAM: reads the stream into a list"""


async def submit_request(engine, prompt, sampling_params, request_id):
    return [output async for output in engine.generate(prompt, sampling_params, request_id)]
