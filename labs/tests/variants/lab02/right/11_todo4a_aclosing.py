"""4a: contextlib.aclosing"""


async def collect_output(stream) -> str:
    text = ""
    async with aclosing(stream) as outputs:
        async for output in outputs:
            text = output.outputs[0].text
    return text
