"""4a L2-4A-OBJECT: returns the RequestOutput"""


async def collect_output(stream) -> str:
    last = None
    async for output in stream:
        last = output
    return last
