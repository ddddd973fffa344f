"""D L3-D-QUERY: fields as parameters of the handler"""


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
    async def generate(prompt: str, max_tokens: int = 64, stream: bool = False):
        body = Body(prompt=prompt, max_tokens=max_tokens, stream=stream)
        if stream:
            return StreamingResponse(pieces(body), media_type="text/plain")
        return {"text": "".join([piece async for piece in pieces(body)])}

    @app.get("/health")
    async def health():
        return "ok"

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics():
        return f"requests_total {total}\nrequests_running {running}\n"

    return app
