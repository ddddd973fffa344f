"""4a L2-4A-FIRST: takes one output with __anext__"""


async def collect_output(stream) -> str:
    output = await stream.__anext__()
    return output.outputs[0].text
