"""4a L2-4A-EMPTY: takes the last of a list that may be empty"""


async def collect_output(stream: AsyncIterator[RequestOutput]) -> str:
    return [output async for output in stream][-1].outputs[0].text
