"""4b: without aclosing, remembering the text"""


async def stream_text(engine, prompt, sampling_params, request_id):
    shown = ""
    async for output in submit_request(engine, prompt, sampling_params, request_id):
        text = output.outputs[0].text
        yield text[len(shown) :]
        shown = text
