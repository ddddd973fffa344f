"""A stand-in for the model hub on 127.0.0.1: the few endpoints that a download needs."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serve `files` (path -> bytes) of one repository; count what is asked for."""

    def __init__(self, repo: str, files: dict[str, bytes]) -> None:
        self.repo = repo
        self.files = files
        self.downloads: list[str] = []
        self.requests: list[str] = []
        self.is_gated = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        self.requests.append(f"{request.command} {request.path}")
        api = f"/api/models/{self.repo}/"
        if self.is_gated:
            self._send(request, 403, b"", {"X-Error-Code": "GatedRepo"})
        elif path == f"{api}revision/main" or path == f"{api}revision/{COMMIT}":
            names = [{"rfilename": name} for name in sorted(self.files)]
            self._send_json(request, {"id": self.repo, "sha": COMMIT, "siblings": names})
        elif path.startswith(f"{api}tree/"):
            self._send_json(request, [self._entry(name) for name in sorted(self.files)])
        elif path.startswith(f"/{self.repo}/resolve/"):
            self._send_file(request, path.split("/", 5)[-1])
        elif path.startswith(api):
            self._send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            self._send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})

    def _entry(self, name: str) -> dict[str, object]:
        data = self.files[name]
        return {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}

    def _send_file(self, request: BaseHTTPRequestHandler, name: str) -> None:
        data = self.files.get(name)
        if data is None:
            self._send(request, 404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if request.command == "GET":
            self.downloads.append(name)
        self._send(request, 200, data, {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": COMMIT})

    def _send_json(self, request: BaseHTTPRequestHandler, value: object) -> None:
        self._send(request, 200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]
    ) -> None:
        request.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
