"""4b L2-4B-WHOLE: yields the whole text each time"""


async def stream_text(engine, prompt, sampling_params, request_id):
    async for output in submit_request(engine, prompt, sampling_params, request_id):
        yield output.outputs[0].text
