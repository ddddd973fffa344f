"""A L3-A-DEAF: looks at the flag between two tokens"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    text = ""
    async with aclosing(engine.generate(prompt, sampling_params, request_id)) as stream:
        async for output in stream:
            text = output.outputs[0].text
            if stop.is_set():
                return text, output.finished
    return text, True
