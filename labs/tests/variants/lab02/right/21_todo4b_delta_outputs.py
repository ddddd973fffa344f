"""4b: asks the engine for deltas"""


async def stream_text(engine, prompt, sampling_params, request_id):
    params = sampling_params.clone()
    params.output_kind = type(params.output_kind).DELTA
    async for output in submit_request(engine, prompt, params, request_id):
        yield output.outputs[0].text
