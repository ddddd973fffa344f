"""4a: breaks when finished"""


async def collect_output(stream) -> str:
    text = ""
    async for output in stream:
        text = output.outputs[0].text
        if output.finished:
            break
    return text
