"""5 L2-5-SAMEID: one id for all"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    request_id = generate_request_id()
    texts = await asyncio.gather(
        *(
            generate_single_request(engine, prompt, sampling_params, request_id)
            for prompt in prompts
        )
    )
    return [(request_id, text) for text in texts]
