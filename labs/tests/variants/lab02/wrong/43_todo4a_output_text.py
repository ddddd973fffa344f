"""4a L2-4A-ATTRIBUTE: reads output.text"""


async def collect_output(stream) -> str:
    text = ""
    async for output in stream:
        text = output.text
    return text
