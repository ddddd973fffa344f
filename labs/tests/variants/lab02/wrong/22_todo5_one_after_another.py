"""5 L2-5-SEQUENTIAL: awaits in the loop"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    results = []
    for prompt in prompts:
        request_id = generate_request_id()
        text = await generate_single_request(engine, prompt, sampling_params, request_id)
        results.append((request_id, text))
    return results
