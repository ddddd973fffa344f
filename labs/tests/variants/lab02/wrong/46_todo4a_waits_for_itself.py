"""4a LAB-HANG: waits for an event that nobody sets"""


async def collect_output(stream) -> str:
    done = asyncio.Event()
    text = ""
    async for output in stream:
        text = output.outputs[0].text
    await done.wait()
    return text
