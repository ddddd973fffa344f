"""4a: a list of outputs, of which it takes the last"""


async def collect_output(stream) -> str:
    outputs = [output async for output in stream]
    return outputs[-1].outputs[0].text if outputs else ""
