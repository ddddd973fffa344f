"""5 L2-5-SWALLOWED: return_exceptions=True, then str()"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    ids = [generate_request_id() for _ in prompts]
    texts = await asyncio.gather(
        *(
            generate_single_request(engine, prompt, sampling_params, id_)
            for prompt, id_ in zip(prompts, ids)
        ),
        return_exceptions=True,
    )
    return [(id_, str(text)) for id_, text in zip(ids, texts)]
