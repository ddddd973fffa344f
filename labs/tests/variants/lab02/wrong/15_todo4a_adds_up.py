"""4a L2-4A-ADDED: adds cumulative outputs up"""


async def collect_output(stream) -> str:
    text = ""
    async for output in stream:
        text += output.outputs[0].text
    return text
