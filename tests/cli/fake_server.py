"""A small OpenAI-compatible server on 127.0.0.1, with answers that the test writes."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeServer:
    """Answer chats with `pieces`; with `is_endless`, repeat the last until the client leaves."""

    def __init__(self) -> None:
        self.pieces = ["Hel", "lo", " 🙃"]
        self.is_endless = False
        self.status = 200
        self.error: dict[str, Any] | None = None
        self.api_key: str | None = None
        self.bodies: list[dict[str, Any]] = []
        self.client_left = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server._models(self)

            def do_POST(self) -> None:
                server._chat(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _is_refused(self, request: BaseHTTPRequestHandler) -> bool:
        wanted = f"Bearer {self.api_key}"
        if self.api_key is not None and request.headers.get("Authorization") != wanted:
            self._send_json(request, 401, {"error": "Unauthorized"})
            return True
        return False

    def _models(self, request: BaseHTTPRequestHandler) -> None:
        if not self._is_refused(request):
            self._send_json(request, 200, {"data": [{"id": "tiny"}, {"id": "other"}]})

    def _chat(self, request: BaseHTTPRequestHandler) -> None:
        if self._is_refused(request):
            return
        size = int(request.headers["Content-Length"])
        self.bodies.append(json.loads(request.rfile.read(size)))
        if self.status != 200:
            self._send_json(request, self.status, {"error": {"message": "too\nmuch", "code": 1}})
            return
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Connection", "close")
        request.end_headers()
        try:
            self._stream(request)
        except OSError:
            self.client_left.set()
        request.close_connection = True

    def _stream(self, request: BaseHTTPRequestHandler) -> None:
        def send(data: str) -> None:
            request.wfile.write(f"data: {data}\n\n".encode())

        for piece in self.pieces:
            send(json.dumps({"choices": [{"delta": {"content": piece}}]}))
        while self.is_endless:
            send(json.dumps({"choices": [{"delta": {"content": self.pieces[-1]}}]}))
        if self.error is not None:
            send(json.dumps({"error": self.error}))
        send("[DONE]")

    def _send_json(self, request: BaseHTTPRequestHandler, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
