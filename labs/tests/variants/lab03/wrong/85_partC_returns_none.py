"""C L3-C-RETURNED: catches its own TimeoutError and returns nothing"""


async def generate_with_timeout(engine, prompt, sampling_params, request_id, timeout_s):
    try:
        async with asyncio.timeout(timeout_s):
            text = ""
            async for output in engine.generate(prompt, sampling_params, request_id):
                text = output.outputs[0].text
            return text
    except TimeoutError:
        await engine.abort(request_id)
