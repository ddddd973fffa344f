"""4b L2-4B-LOST: yields the last character only"""


async def stream_text(engine, prompt, sampling_params, request_id):
    async for output in submit_request(engine, prompt, sampling_params, request_id):
        yield output.outputs[0].text[-1:]
