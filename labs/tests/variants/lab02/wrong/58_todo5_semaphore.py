"""5 L2-5-FEW: lets only two run at a time"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    two = asyncio.Semaphore(2)

    async def run(prompt):
        request_id = generate_request_id()
        async with two:
            text = await generate_single_request(engine, prompt, sampling_params, request_id)
        return request_id, text

    return await asyncio.gather(*(run(prompt) for prompt in prompts))
