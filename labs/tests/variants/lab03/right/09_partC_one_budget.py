"""C: a limit for each output out of one budget"""


async def generate_with_timeout(engine, prompt, sampling_params, request_id, timeout_s):
    text = ""
    end = time.monotonic() + timeout_s
    async with aclosing(engine.generate(prompt, sampling_params, request_id)) as stream:
        while True:
            try:
                output = await asyncio.wait_for(anext(stream), end - time.monotonic())
            except StopAsyncIteration:
                return text
            text = output.outputs[0].text
