"""5 L2-5-SHAPE: returns only the texts"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    return await asyncio.gather(
        *(
            generate_single_request(engine, prompt, sampling_params, generate_request_id())
            for prompt in prompts
        )
    )
