"""4a: a loop of anext with a default"""


async def collect_output(stream) -> str:
    text = ""
    while (output := await anext(stream, None)) is not None:
        text = output.outputs[0].text
    return text
