"""4a L2-4A-SWALLOWED: except Exception: return ''"""


async def collect_output(stream) -> str:
    text = ""
    try:
        async for output in stream:
            text = output.outputs[0].text
    except Exception:
        return ""
    return text
