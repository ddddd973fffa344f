"""4b L2-4B-CUT: removes the old text by replace()"""


async def stream_text(engine, prompt, sampling_params, request_id):
    shown = ""
    async for output in submit_request(engine, prompt, sampling_params, request_id):
        text = output.outputs[0].text
        yield text.replace(shown, "")
        shown = text
