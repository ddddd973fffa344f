"""5: tasks, then gather"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    async def run(prompt):
        request_id = generate_request_id()
        text = await generate_single_request(engine, prompt, sampling_params, request_id)
        return request_id, text

    tasks = [asyncio.create_task(run(prompt)) for prompt in prompts]
    return await asyncio.gather(*tasks)
