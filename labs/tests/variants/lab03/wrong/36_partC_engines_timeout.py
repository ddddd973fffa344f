"""C L3-C-DEAF: the engine's own timeout, which does not raise"""


async def generate_with_timeout(engine, prompt, sampling_params, request_id, timeout_s):
    text = ""
    async for output in engine.generate(prompt, sampling_params, request_id, timeout=timeout_s):
        text = output.outputs[0].text
    return text
