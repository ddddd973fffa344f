"""The hand-written HTTP and SSE readers, fed byte by byte."""

import pytest

from wheelpit.bench.http_stream import EventReader, ResponseReader

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def feed_in_pieces(reader: ResponseReader, data: bytes, size: int) -> bytes:
    pieces = (data[i : i + size] for i in range(0, len(data), size))
    return b"".join(reader.feed(piece) for piece in pieces)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunked_bodies_are_read_however_they_are_cut(size: int) -> None:
    reader = ResponseReader()
    body = feed_in_pieces(
        reader, HEAD + b"3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\n\r\n", size
    )
    assert body == b"abc0123456789abcdef"
    assert reader.status == 200
    assert reader.is_complete
    assert reader.is_keep_alive


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_content_length_ends_the_response(size: int) -> None:
    reader = ResponseReader()
    data = b"HTTP/1.1 429 Too Many\r\ncontent-length: 4\r\nConnection: close\r\n\r\nbusy"
    assert feed_in_pieces(reader, data, size) == b"busy"
    assert (reader.status, reader.is_complete, reader.is_keep_alive) == (429, True, False)


def test_without_framing_the_connection_ends_the_response() -> None:
    reader = ResponseReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\nabc") == b"abc"
    assert not reader.is_complete
    assert reader.end_of_connection()


def test_a_malformed_chunk_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        ResponseReader().feed(HEAD + b"zz\r\nabc\r\n")


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_only_events_that_bring_tokens_are_counted(line_end: bytes, size: int) -> None:
    events = [
        b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}',
        b'data: {"choices":[{"delta":{"content":"hi"}}]}',
        b": ping",
        b'data: {"choices":[{"index":0,"text":" \\"content\\": \\"x"}]}',
        b'data: {"choices":[{"text": "","finish_reason":null}]}',
        b'data: {"choices":[{"text": "","finish_reason":"length"}]}',
        b'data: {"choices":[{"text":"end","finish_reason":"stop"}]}',
        b"data: [DONE]",
    ]
    data = b"".join(event + 2 * line_end for event in events)
    reader = EventReader()
    assert sum(reader.feed(data[i : i + size]) for i in range(0, len(data), size)) == 4
    assert list(reader.tail) == events[-4:]
