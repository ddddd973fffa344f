"""labkit.asgi: one HTTP request to an ASGI app, made by hand."""

import asyncio
import json

from labkit.asgi import Exchange
from test_kit import on_a_loop


class App:
    """Answers as a test says; keeps what it received."""

    def __init__(self, *pieces: bytes, status: int = 200) -> None:
        self.pieces = pieces
        self.status = status
        self.go = asyncio.Event()
        self.received: list[dict] = []

    async def __call__(self, scope, receive, send):
        self.scope = scope
        self.received.append(await receive())
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await self.go.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self.received.append(await receive())


@on_a_loop
async def test_the_app_gets_the_request_and_the_client_the_answer():
    app = App(b'{"text": ', b'"Hi"}', status=201)
    app.go.set()
    exchange = await Exchange(app, "POST", "/generate", {"prompt": "Hello"}).ended()
    assert (app.scope["method"], app.scope["path"]) == ("POST", "/generate")
    assert json.loads(app.received[0]["body"]) == {"prompt": "Hello"}
    assert (exchange.status, exchange.pieces) == (201, [b'{"text": ', b'"Hi"}'])
    assert exchange.json() == {"text": "Hi"}
    assert exchange.error is None
    # As servers do: whoever asks on after a complete answer hears of a disconnect.
    assert app.received[1] == {"type": "http.disconnect"}


@on_a_loop
async def test_bytes_are_sent_as_they_are_and_none_sends_nothing():
    for body, sent in ((b"{", b"{"), (None, b""), ([], b"[]")):
        app = App()
        await Exchange(app, "GET", "/", body).ended()
        assert app.received[0]["body"] == sent
        assert dict(app.scope["headers"])[b"content-length"] == str(len(sent)).encode()


@on_a_loop
async def test_each_piece_is_seen_when_it_is_sent():
    app = App(b"one", b"two")
    exchange = Exchange(app, "GET", "/")
    await exchange.received(1)
    assert exchange.pieces == [b"one"]
    assert exchange.json() is None
    app.go.set()
    assert (await exchange.ended()).text == "onetwo"


@on_a_loop
async def test_a_client_that_leaves_is_told_to_the_app_and_hears_no_more():
    app = App(b"one", b"two")
    exchange = Exchange(app, "GET", "/")
    await exchange.received(1)
    exchange.leave()
    app.go.set()
    await exchange.ended()
    assert exchange.pieces == [b"one"]
    assert app.received[-1] == {"type": "http.disconnect"}


@on_a_loop
async def test_receive_can_be_cancelled_and_asked_again():
    """Starlette's is_disconnected() looks with a time limit."""
    looks = []

    async def app(scope, receive, send):
        await receive()
        for _ in range(2):
            looking = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            looking.cancel()
            looks.append(await asyncio.gather(looking, return_exceptions=True))
        looks.append(await receive())

    exchange = Exchange(app, "GET", "/")
    while len(looks) < 2:
        await asyncio.sleep(0)
    exchange.leave()
    await exchange.ended()
    assert [type(look[0]) for look in looks[:2]] == [asyncio.CancelledError] * 2
    assert looks[2] == {"type": "http.disconnect"}


@on_a_loop
async def test_what_the_app_raises_is_kept():
    async def app(scope, receive, send):
        raise KeyError("x")

    exchange = await Exchange(app, "GET", "/").ended()
    assert isinstance(exchange.error, KeyError)
    assert exchange.status is None
