"""4a L2-4A-NONE: prints the text instead of returning it"""


async def collect_output(stream) -> str:
    async for output in stream:
        print(output.outputs[0].text)
