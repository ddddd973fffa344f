"""4a L2-4A-CANCEL: catches CancelledError and returns"""


async def collect_output(stream) -> str:
    text = ""
    try:
        async for output in stream:
            text = output.outputs[0].text
    except asyncio.CancelledError:
        pass
    return text
