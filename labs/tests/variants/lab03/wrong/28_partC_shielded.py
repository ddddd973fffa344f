"""C L3-C-LEAK: shielded: timed out, yet still running"""


async def generate_with_timeout(engine, prompt, sampling_params, request_id, timeout_s):
    async def read():
        text = ""
        async for output in engine.generate(prompt, sampling_params, request_id):
            text = output.outputs[0].text
        return text

    return await asyncio.wait_for(asyncio.shield(read()), timeout_s)
