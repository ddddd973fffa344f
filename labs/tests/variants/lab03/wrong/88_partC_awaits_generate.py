"""C L3-STREAM: wait_for round generate()"""


async def generate_with_timeout(engine, prompt, sampling_params, request_id, timeout_s):
    return await asyncio.wait_for(engine.generate(prompt, sampling_params, request_id), timeout_s)
