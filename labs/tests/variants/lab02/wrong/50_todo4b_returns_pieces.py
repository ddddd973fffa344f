"""4b L2-4B-COROUTINE: returns a list of pieces"""


async def stream_text(engine, prompt, sampling_params, request_id):
    pieces, num_shown = [], 0
    async for output in submit_request(engine, prompt, sampling_params, request_id):
        text = output.outputs[0].text
        pieces.append(text[num_shown:])
        num_shown = len(text)
    return pieces
