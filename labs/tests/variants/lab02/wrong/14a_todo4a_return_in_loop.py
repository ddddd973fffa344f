"""4a L2-4A-FIRST: returns inside the loop"""


async def collect_output(stream) -> str:
    async for output in stream:
        return output.outputs[0].text
