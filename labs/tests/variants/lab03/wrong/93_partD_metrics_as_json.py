"""D L3-D-METRICS: the numbers as a JSON string"""


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
    async def generate(body: Body):
        if body.stream:
            return StreamingResponse(pieces(body), media_type="text/plain")
        return {"text": "".join([piece async for piece in pieces(body)])}

    @app.get("/health")
    async def health():
        return "ok"

    @app.get("/metrics")
    async def metrics():
        return f"requests_total {total}\nrequests_running {running}\n"

    return app
