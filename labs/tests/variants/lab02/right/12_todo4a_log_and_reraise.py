"""4a: logs the error and raises it again"""


async def collect_output(stream) -> str:
    text = ""
    try:
        async for output in stream:
            text = output.outputs[0].text
    except Exception as error:
        print(f"failed: {error}")
        raise
    return text
