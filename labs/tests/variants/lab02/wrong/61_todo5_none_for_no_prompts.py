"""5 L2-5-EMPTY: returns None when there are no prompts"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    async def run(prompt):
        request_id = generate_request_id()
        text = await generate_single_request(engine, prompt, sampling_params, request_id)
        return request_id, text

    if not prompts:
        return None
    return await asyncio.gather(*(run(prompt) for prompt in prompts))
