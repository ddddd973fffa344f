"""4b L2-4B-LATE: collects first, yields once"""


async def stream_text(engine, prompt, sampling_params, request_id):
    text = await collect_output(submit_request(engine, prompt, sampling_params, request_id))
    yield text
