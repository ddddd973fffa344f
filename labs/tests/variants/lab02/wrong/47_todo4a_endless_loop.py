"""4a LAB-STUCK: polls without an await"""


async def collect_output(stream) -> str:
    task = asyncio.ensure_future(stream.__anext__())
    while not task.done():
        pass
    return task.result().outputs[0].text
