"""Read server-sent events without any client library's help."""

from __future__ import annotations

import json
from typing import Any

import httpx


def events_of(response: httpx.Response) -> list[Any]:
    """The JSON of each event; asserts the framing and that the last event is [DONE].

    Comments are left out: see `comments_of`.
    """
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *frames, end = response.text.split("\n\n")
    assert end == ""
    frames = [frame for frame in frames if not frame.startswith(":")]
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    assert frames[-1] == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-1]]


def comments_of(response: httpx.Response) -> list[str]:
    """The comments of a stream, without their colons."""
    frames = response.text.split("\n\n")
    comments = [frame.removeprefix(":").strip() for frame in frames if frame.startswith(":")]
    assert not any("\n" in comment for comment in comments)
    return comments


def text_of(events: list[Any], index: int = 0) -> str:
    """The text of one choice, chat or completion."""
    parts = []
    for event in events:
        for choice in event["choices"]:
            if choice["index"] == index:
                parts.append(
                    choice["delta"].get("content", "") if "delta" in choice else choice["text"]
                )
    return "".join(parts)
