"""A L3-A-CUT: polls with wait_for round each output"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    text = ""
    stream = engine.generate(prompt, sampling_params, request_id)
    try:
        while not stop.is_set():
            try:
                output = await asyncio.wait_for(anext(stream), 0.05)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                return text, True
            text = output.outputs[0].text
        return text, False
    finally:
        await stream.aclose()
