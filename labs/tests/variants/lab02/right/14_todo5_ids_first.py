"""5: ids first, gathered texts zipped to them"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    ids = [generate_request_id() for _ in prompts]
    texts = await asyncio.gather(
        *(
            generate_single_request(engine, prompt, sampling_params, id_)
            for prompt, id_ in zip(prompts, ids)
        )
    )
    return list(zip(ids, texts))
