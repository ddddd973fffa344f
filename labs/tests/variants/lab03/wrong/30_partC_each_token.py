"""C L3-C-PERTOKEN: a limit for each token"""


async def generate_with_timeout(engine, prompt, sampling_params, request_id, timeout_s):
    text = ""
    async with aclosing(engine.generate(prompt, sampling_params, request_id)) as stream:
        while True:
            output = await asyncio.wait_for(anext(stream), timeout_s)
            text = output.outputs[0].text
            if output.finished:
                return text
