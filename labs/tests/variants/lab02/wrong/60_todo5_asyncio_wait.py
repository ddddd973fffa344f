"""5 L2-5-COROUTINES: gives asyncio.wait coroutines"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    async def run(prompt):
        request_id = generate_request_id()
        text = await generate_single_request(engine, prompt, sampling_params, request_id)
        return request_id, text

    done, _ = await asyncio.wait([run(prompt) for prompt in prompts])
    return [task.result() for task in done]
