"""4b: character by character"""


async def stream_text(engine, prompt, sampling_params, request_id):
    num_shown = 0
    async for output in submit_request(engine, prompt, sampling_params, request_id):
        text = output.outputs[0].text
        for character in text[num_shown:]:
            yield character
        num_shown = len(text)
