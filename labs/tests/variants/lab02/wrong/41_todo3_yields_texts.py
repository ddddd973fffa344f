"""3 L2-3-CHANGED: takes the text out too early"""


async def submit_request(engine, prompt, sampling_params, request_id):
    async for output in engine.generate(prompt, sampling_params, request_id):
        yield output.outputs[0].text
