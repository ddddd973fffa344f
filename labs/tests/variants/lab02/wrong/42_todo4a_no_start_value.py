"""4a L2-4A-EMPTY: no value before the loop"""


async def collect_output(stream) -> str:
    async for output in stream:
        text = output.outputs[0].text
    return text
