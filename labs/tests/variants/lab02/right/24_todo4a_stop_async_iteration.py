"""4a: __anext__ until StopAsyncIteration"""


async def collect_output(stream) -> str:
    text = ""
    while True:
        try:
            output = await stream.__anext__()
        except StopAsyncIteration:
            return text
        text = output.outputs[0].text
