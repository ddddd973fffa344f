"""5 LAB-STUCK: waits for the result of its own loop, blocking it"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    async def run(prompt):
        request_id = generate_request_id()
        text = await generate_single_request(engine, prompt, sampling_params, request_id)
        return request_id, text

    loop = asyncio.get_running_loop()
    futures = [asyncio.run_coroutine_threadsafe(run(prompt), loop) for prompt in prompts]
    return [future.result() for future in futures]
