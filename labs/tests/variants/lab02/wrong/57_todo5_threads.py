"""5 L2-5-LOOPS: a thread and a loop for each prompt"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    async def run(prompt):
        request_id = generate_request_id()
        text = await generate_single_request(engine, prompt, sampling_params, request_id)
        return request_id, text

    return await asyncio.gather(*(asyncio.to_thread(asyncio.run, run(p)) for p in prompts))
