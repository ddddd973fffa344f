"""4a L2-4A-FOR: a plain for loop"""


async def collect_output(stream) -> str:
    text = ""
    for output in stream:
        text = output.outputs[0].text
    return text
