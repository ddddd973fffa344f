"""A: waits for each output and the flag"""


async def generate_until(engine, prompt, sampling_params, request_id, stop):
    text = ""
    stopping = asyncio.create_task(stop.wait())
    stream = engine.generate(prompt, sampling_params, request_id)
    try:
        while True:
            coming = asyncio.ensure_future(anext(stream, None))
            try:
                await asyncio.wait([coming, stopping], return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not coming.done():
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)
            if coming.cancelled():
                return text, False
            output = coming.result()
            if output is None:
                return text, True
            text = output.outputs[0].text
            if stop.is_set() and not output.finished:
                return text, False
    finally:
        stopping.cancel()
        await stream.aclose()
