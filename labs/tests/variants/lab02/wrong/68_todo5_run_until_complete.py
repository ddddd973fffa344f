"""5 L2-5-RUN: starts a second loop inside the first"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    async def run(prompt):
        request_id = generate_request_id()
        text = await generate_single_request(engine, prompt, sampling_params, request_id)
        return request_id, text

    loop = asyncio.get_event_loop()
    return loop.run_until_complete(asyncio.gather(*[run(prompt) for prompt in prompts]))
