"""C L3-C-DEAF: looks at the clock between tokens"""


async def generate_with_timeout(engine, prompt, sampling_params, request_id, timeout_s):
    text = ""
    end = time.monotonic() + timeout_s
    async with aclosing(engine.generate(prompt, sampling_params, request_id)) as stream:
        async for output in stream:
            text = output.outputs[0].text
            if time.monotonic() > end:
                raise TimeoutError
    return text
