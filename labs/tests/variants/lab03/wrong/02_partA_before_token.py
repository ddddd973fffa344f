"""A L3-A-DEAF: looks at the flag before each token"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    text = ""
    stream = engine.generate(prompt, sampling_params, request_id)
    try:
        while not stop.is_set():
            output = await anext(stream)
            text = output.outputs[0].text
            if output.finished:
                return text, True
        return text, False
    finally:
        await stream.aclose()
