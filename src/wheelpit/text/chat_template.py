"""ChatTemplate: a model's jinja template, compiled once, run in a sandbox.

Templates come from model folders and are not trusted: they run in jinja2's immutable sandbox
and see only the conversation. Whatever goes wrong is the request's fault (ValidationError), also
where the template itself is broken: no other request can be helped by ending the engine.
jinja2 is imported on first use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from wheelpit.errors import ValidationError

if TYPE_CHECKING:
    import jinja2

Message = Mapping[str, Any]


class ChatTemplate:
    """Turn messages into a prompt. Immutable; safe to share between threads."""

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        """Keep the source; it is compiled when first used.

        special_tokens: variables for the template, such as bos_token and eos_token.
        """
        self.source = source
        self.special_tokens = dict(special_tokens or {})

    def check(self) -> None:
        """Compile now instead of at the first conversation. Raises ValidationError."""
        _ = self._compiled

    def render(
        self,
        messages: Sequence[Message],
        /,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Any] | None = None,
        **variables: Any,
    ) -> str:
        """Return the prompt of a conversation.

        continue_final_message: leave the last message open, so that the model goes on with it.
        variables: passed to the template as they are. Raises ValidationError.
        """
        if add_generation_prompt and continue_final_message:
            raise ValidationError(
                "add_generation_prompt and continue_final_message exclude each other: "
                "set at most one of them",
                parameter="continue_final_message",
                value=True,
            )
        conversation = [_checked(message, index) for index, message in enumerate(messages)]
        if not conversation:
            raise ValidationError("messages is empty", parameter="messages", value=[])
        text = self._run(
            {
                **self.special_tokens,
                **variables,
                "messages": conversation,
                "tools": tools or None,
                "add_generation_prompt": add_generation_prompt,
            }
        )
        return _without_end(text, conversation[-1]) if continue_final_message else text

    def _run(self, variables: dict[str, Any]) -> str:
        import jinja2

        try:
            return self._compiled.render(variables)
        except jinja2.TemplateError as error:
            raise ValidationError(f"chat template: {error.message or error}") from error
        except Exception as error:  # a template can fail in any way Python can
            kind = type(error).__name__
            raise ValidationError(
                f"chat template failed on these messages: {kind}: {error}"
            ) from error

    @cached_property
    def _compiled(self) -> jinja2.Template:
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            return environment.from_string(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise ValidationError(
                f"chat template does not compile: line {error.lineno}: {error.message}"
            ) from error


def _checked(message: Message, index: int) -> dict[str, Any]:
    """Copy a message; a list of text parts becomes one text."""
    if not isinstance(message, Mapping):
        raise _refusal(index, f"must be an object, got {type(message).__name__}")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise _refusal(index, f"needs a role (a non-empty string), got {role!r}")
    content = message.get("content")
    if isinstance(content, str) or (content is None and role == "assistant"):
        return {**message, "content": content or ""}
    if isinstance(content, list):
        texts = [_text_of(part, index) for part in content]
        return {**message, "content": "\n".join(texts)}
    raise _refusal(
        index, f"needs content (a string or a list of parts), got {type(content).__name__}"
    )


def _text_of(part: object, index: int) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    if not isinstance(part, Mapping) or kind != "text":
        raise _refusal(index, f"has a content part of type {kind!r}: only 'text' is supported")
    text = part.get("text")
    if not isinstance(text, str):
        raise _refusal(index, f"has a text part without text, got {text!r}")
    return text


def _refusal(index: int, what: str) -> ValidationError:
    return ValidationError(f"messages[{index}] {what}")


def _without_end(text: str, last: Mapping[str, Any]) -> str:
    """Cut the prompt right after the last message's content."""
    content = str(last["content"]).strip()
    place = text.rfind(content)
    if not content or place < 0:
        raise ValidationError(
            "continue_final_message needs a last message with content that the chat template "
            "repeats as it is",
            parameter="continue_final_message",
            value=True,
        )
    end = place + len(content)
    original = str(last["content"])
    spaces = original[len(original.rstrip()) :]
    return text[:end] + (spaces if text.startswith(spaces, end) else "")


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Dump JSON for a model to read: jinja's own filter would escape it for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
