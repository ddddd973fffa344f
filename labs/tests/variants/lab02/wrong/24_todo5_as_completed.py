"""5 L2-5-PAIRS: as_completed zipped to the ids"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    ids = [generate_request_id() for _ in prompts]
    coroutines = [
        generate_single_request(engine, prompt, sampling_params, id_)
        for prompt, id_ in zip(prompts, ids)
    ]
    texts = [await done for done in asyncio.as_completed(coroutines)]
    return list(zip(ids, texts))
