"""5 L2-5-DEDUP: keeps the tasks in a dict by prompt"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    async def run(prompt):
        request_id = generate_request_id()
        text = await generate_single_request(engine, prompt, sampling_params, request_id)
        return request_id, text

    tasks = {prompt: asyncio.create_task(run(prompt)) for prompt in prompts}
    await asyncio.gather(*tasks.values())
    return [tasks[prompt].result() for prompt in prompts]
