"""D L3-D-LEAK: a background task goes on when the stream is left"""


def create_app(engine: AsyncLLMEngine) -> "FastAPI":
    numbers = itertools.count(1)
    counts = {"total": 0, "running": 0}

    class Body(BaseModel):
        prompt: str
        max_tokens: int = Field(default=64, ge=1)
        stream: bool = False

    app = FastAPI()

    async def pieces(body: Body) -> AsyncIterator[str]:
        sampling_params = SamplingParams(temperature=0.0, max_tokens=body.max_tokens)
        num_shown = 0
        counts["total"] += 1
        counts["running"] += 1
        try:
            stream = engine.generate(body.prompt, sampling_params, f"http-{next(numbers)}")
            async with aclosing(stream) as outputs:
                async for output in outputs:
                    text = output.outputs[0].text
                    if len(text) > num_shown:
                        yield text[num_shown:]
                        num_shown = len(text)
        finally:
            counts["running"] -= 1

    async def whole(body: Body) -> str:
        async with aclosing(pieces(body)) as stream:
            return "".join([piece async for piece in stream])

    kept = []

    async def pumped(body):
        queue = asyncio.Queue()

        async def pump():
            try:
                async for piece in pieces(body):
                    queue.put_nowait(piece)
            finally:
                queue.put_nowait(None)

        kept.append(asyncio.create_task(pump()))
        while (piece := await queue.get()) is not None:
            yield piece

    async def until_gone(request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    @app.post("/generate")
    async def generate(body: Body, request: Request):
        if body.stream:
            return StreamingResponse(pumped(body), media_type="text/plain")
        answering = asyncio.create_task(whole(body))
        leaving = asyncio.create_task(until_gone(request))
        try:
            await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
            return {"text": answering.result() if answering.done() else ""}
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)

    @app.get("/health")
    async def health():
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics():
        return f"requests_total {counts['total']}\nrequests_running {counts['running']}\n"

    return app
