"""4b: engine.generate itself, with try and finally"""


async def stream_text(engine, prompt, sampling_params, request_id):
    stream = engine.generate(prompt, sampling_params, request_id)
    num_shown = 0
    try:
        async for output in stream:
            text = output.outputs[0].text
            yield text[num_shown:]
            num_shown = len(text)
    finally:
        await stream.aclose()
