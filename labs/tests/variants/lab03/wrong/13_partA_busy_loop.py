"""A LAB-STUCK: waits for the flag without an await"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    text = ""
    async for output in engine.generate(prompt, sampling_params, request_id):
        text = output.outputs[0].text
        while not output.finished and not stop.is_set():
            pass
    return text, True
