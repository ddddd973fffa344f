"""Read a request's JSON body, bounded, and decode it into a struct."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec
from starlette.requests import Request

from wheelpit.server.errors import BadBodyError, BodyTooLargeError, ClientGoneError

T = TypeVar("T")

Body = bytes | bytearray

FIELD_PATH = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
NAMED_FIELD = re.compile(r"(?:missing required|unknown) field `([^`]*)`")


async def read_json(
    request: Request,
    decoder: msgspec.json.Decoder[T],
    max_bytes: int,
    check: Callable[[Body], None] = lambda body: None,
) -> T:
    """Return the decoded body.

    check: looks at it before it is decoded; may raise what it likes. Raises BadBodyError,
    BodyTooLargeError or ClientGoneError. The decoder is strict about types and ignores fields it
    does not know.
    """
    _check_content_type(request.headers.get("content-type"))
    body = await _read(request, max_bytes)
    check(body)
    return decode(body, decoder)


def decode(body: Body, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode, translating whatever the decoder finds wrong into BadBodyError."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message = str(error)
        raise BadBodyError(f"the body does not fit: {message}", _field_of(message)) from error
    except msgspec.DecodeError as error:
        raise BadBodyError(f"the body is not valid JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise BadBodyError(f"the body is not valid UTF-8: {error.reason}") from error
    except RecursionError as error:
        raise BadBodyError("the body is nested too deeply") from error


def _field_of(message: str) -> str | None:
    """The field that the decoder complains of, with the path to it."""
    path, name = FIELD_PATH.search(message), NAMED_FIELD.search(message)
    return ".".join(found.group(1) for found in (path, name) if found and found.group(1)) or None


def _check_content_type(value: str | None) -> None:
    media_type = (value or "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise BadBodyError(
            f"the content type is {(value or 'missing')[:100]!r}: send the body as "
            "JSON with the header Content-Type: application/json"
        )


async def _read(request: Request, max_bytes: int) -> Body:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > max_bytes:
        raise _too_large(f"{declared[:20]} bytes", max_bytes)
    # Joining the parts of a large body at its end would hold up the event loop.
    body = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError("the client left while sending the body")
        part: bytes = message.get("body", b"")
        if len(body) + len(part) > max_bytes:
            raise _too_large(f"more than {max_bytes} bytes", max_bytes)
        if not body and not message.get("more_body", False):
            return part
        body += part
        if not message.get("more_body", False):
            return body


def _too_large(size: str, max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"the body has {size}, limit is {max_bytes}: send less, or raise --max-body-bytes"
    )
