"""3 L2-3-BUFFERED: passes each output on when the next has come"""


async def submit_request(engine, prompt, sampling_params, request_id):
    before = None
    async for output in engine.generate(prompt, sampling_params, request_id):
        if before is not None:
            yield before
        before = output
    if before is not None:
        yield before
