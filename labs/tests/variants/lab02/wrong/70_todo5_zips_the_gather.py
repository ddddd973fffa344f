"""5 L2-5-GATHER: zips the ids with a gather that nobody awaited"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    ids = [generate_request_id() for _ in prompts]
    texts = asyncio.gather(
        *(
            generate_single_request(engine, prompt, sampling_params, request_id)
            for prompt, request_id in zip(prompts, ids)
        )
    )
    return list(zip(ids, texts))
