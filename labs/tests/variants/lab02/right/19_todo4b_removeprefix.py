"""4b: removeprefix"""


async def stream_text(engine, prompt, sampling_params, request_id):
    shown = ""
    async for output in submit_request(engine, prompt, sampling_params, request_id):
        text = output.outputs[0].text
        if new := text.removeprefix(shown):
            yield new
        shown = text
