"""D L3-D-LEAK: asks between two tokens whether the client is still there"""


def create_app(engine):
    app = FastAPI()
    total = running = 0

    class Body(BaseModel):
        prompt: str
        max_tokens: int = Field(default=64, ge=1)
        stream: bool = False

    async def pieces(body):
        nonlocal total, running
        total += 1
        running += 1
        try:
            params = SamplingParams(max_tokens=body.max_tokens)
            seen = ""
            async for output in engine.generate(body.prompt, params, f"req-{total}"):
                text = output.outputs[0].text
                yield text[len(seen) :]
                seen = text
        finally:
            running -= 1

    @app.post("/generate")
    async def generate(body: Body, request: Request):
        if body.stream:
            return StreamingResponse(pieces(body), media_type="text/plain")
        text = ""
        async for piece in pieces(body):
            if await request.is_disconnected():
                break
            text += piece
        return {"text": text}

    @app.get("/health")
    async def health():
        return "ok"

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics():
        return f"requests_total {total}\nrequests_running {running}\n"

    return app
