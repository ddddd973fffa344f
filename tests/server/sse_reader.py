"""Read server-sent events without any client library's help."""

from __future__ import annotations

import json
from typing import Any

import httpx


def events_of(response: httpx.Response) -> list[Any]:
    """The JSON of each event; asserts the framing and that the last event is [DONE]."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *frames, end = response.text.split("\n\n")
    assert end == ""
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    assert frames[-1] == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-1]]


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
