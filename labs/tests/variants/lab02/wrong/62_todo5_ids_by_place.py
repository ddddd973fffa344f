"""5 L2-5-SHARED: numbers the requests by their place in the batch"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    async def run(number, prompt):
        request_id = f"req-{number}"
        return request_id, await generate_single_request(
            engine, prompt, sampling_params, request_id
        )

    return await asyncio.gather(*(run(n, prompt) for n, prompt in enumerate(prompts)))
