"""`wheelpit chat`: talk to a running server in the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated, Any
from unicodedata import category

import typer

from wheelpit.cli.chat_client import ChatClient
from wheelpit.errors import WheelpitError

HELP = """\
/reset   forget the conversation
/help    show this
/quit    leave (so does Ctrl-D)
Ctrl-C   stop the answer"""


def chat(
    url: Annotated[str, typer.Option(help="The server.")] = "http://127.0.0.1:8000",
    model: Annotated[str | None, typer.Option(help="Default: the server's first.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, max=2.0)] = None,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens an answer.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    api_key: Annotated[str | None, typer.Option(envvar="WHEELPIT_API_KEY")] = None,
) -> None:
    """Chat with a running server: answers stream, Ctrl-C stops one, Ctrl-D leaves."""
    client = ChatClient(url, api_key)
    names = client.model_names()
    options = {
        "model": model or (names[0] if names else ""),
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "seed": seed,
    }
    conversation = Conversation(
        client, {key: value for key, value in options.items() if value is not None}, system
    )
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # gives input() line editing and a history
        print(f"{options['model']} at {client.url}. /help for help, Ctrl-D to leave.")
    for line in _lines("> " if is_terminal else ""):
        if line in ("/quit", "/exit"):
            return
        _handle(line, conversation)


def _handle(line: str, conversation: Conversation) -> None:
    if not line:
        return
    if line == "/reset":
        conversation.reset()
        print("The conversation is forgotten.")
    elif line.startswith("/"):
        print(HELP)
    else:
        _answer(line, conversation)


def _answer(line: str, conversation: Conversation) -> None:
    """Print the answer as it comes; Ctrl-C or an error ends it, not the chat."""
    try:
        for piece in conversation.ask(line):
            print(_printable(piece), end="", flush=True)
        print()
    except KeyboardInterrupt:
        print("\n[stopped]")
    except WheelpitError as error:
        print(f"\nwheelpit: error: {error}", file=sys.stderr)


class Conversation:
    """The messages so far. Written only by the chat loop."""

    def __init__(self, client: ChatClient, options: dict[str, Any], system: str | None) -> None:
        self._client = client
        self._options = options
        self._system = [{"role": "system", "content": system}] if system else []
        self.messages: list[dict[str, str]] = []

    def reset(self) -> None:
        """Forget everything but the system message."""
        self.messages = []

    def ask(self, text: str) -> Iterator[str]:
        """Yield the pieces of the answer.

        What was answered before the end or a Ctrl-C is remembered; a question without any answer
        is not, so that it can be asked again.
        """
        question = {"role": "user", "content": text}
        body = {**self._options, "messages": [*self._system, *self.messages, question]}
        pieces: list[str] = []
        stream = self._client.stream_chat(body)
        try:
            for piece in stream:
                pieces.append(piece)
                yield piece
        finally:
            if pieces:
                answer = {"role": "assistant", "content": "".join(pieces)}
                self.messages += [question, answer]


def _lines(prompt: str) -> Iterator[str]:
    """Yield what is typed until Ctrl-D; Ctrl-C drops the line being typed."""
    while True:
        try:
            line = input(prompt)
        except EOFError:
            if prompt:
                print()
            return
        except KeyboardInterrupt:
            print()
            continue
        yield line.strip()


def _printable(text: str) -> str:
    """Drop control characters: an answer must not be able to drive the terminal."""
    return "".join(char for char in text if char in "\n\t" or category(char) != "Cc")
