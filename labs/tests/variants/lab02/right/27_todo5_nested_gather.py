"""5: gathers what single requests return, through a list of pairs"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    async def answer(pair):
        return pair[0], await generate_single_request(engine, pair[1], sampling_params, pair[0])

    pairs = [(generate_request_id("req"), prompt) for prompt in prompts]
    answers = await asyncio.gather(*map(answer, pairs))
    return list(answers)
