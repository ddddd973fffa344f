"""D: prometheus_client with a registry of its own, and a watcher that cancels the handler"""


def create_app(engine):
    from fastapi import HTTPException
    from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

    registry = CollectorRegistry()
    total = Counter("requests_total", "Requests the engine got.", registry=registry)
    running = Gauge("requests_running", "Requests in the engine.", registry=registry)
    ids = itertools.count()
    app = FastAPI()

    class Order(BaseModel):
        prompt: str
        max_tokens: int = 64
        stream: bool = False

    async def outputs(order):
        total.inc()
        with running.track_inprogress():
            params = SamplingParams(temperature=0, max_tokens=order.max_tokens)
            async for output in engine.generate(order.prompt, params, f"web-{next(ids)}"):
                yield output.outputs[0].text

    async def news(order):
        seen = ""
        async with aclosing(outputs(order)) as texts:
            async for text in texts:
                yield text.removeprefix(seen)
                seen = text

    @app.post("/generate")
    async def generate(order: Order, request: Request):
        if order.max_tokens < 1:
            raise HTTPException(400, "max_tokens must be at least 1")
        if order.stream:
            return StreamingResponse(news(order), media_type="text/plain")
        me = asyncio.current_task()

        async def watch():
            while not await request.is_disconnected():
                await asyncio.sleep(0.05)
            me.cancel()

        watching = asyncio.create_task(watch())
        text = ""
        try:
            async with aclosing(outputs(order)) as texts:
                async for text in texts:
                    pass
        except asyncio.CancelledError:
            return {"text": text}
        finally:
            watching.cancel()
        return {"text": text}

    @app.get("/health")
    def health():
        return None

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics():
        return generate_latest(registry).decode()

    return app
