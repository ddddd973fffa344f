"""5 LAB-AWAIT: forgets the await in the loop"""


async def generate_concurrent_requests(engine, prompts, sampling_params):
    results = []
    for prompt in prompts:
        request_id = generate_request_id()
        generate_single_request(engine, prompt, sampling_params, request_id)
        results.append((request_id, ""))
    return results
