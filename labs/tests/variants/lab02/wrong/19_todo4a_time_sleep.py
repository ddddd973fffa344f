"""4a LAB-BLOCKED: time.sleep in the loop"""


async def collect_output(stream) -> str:
    text = ""
    async for output in stream:
        text = output.outputs[0].text
        time.sleep(0.01)
    return text
