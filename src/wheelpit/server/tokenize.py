"""POST /tokenize and /detokenize."""

from __future__ import annotations

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from wheelpit.errors import ValidationError
from wheelpit.server.body import read_json
from wheelpit.server.prompts import check_chars, check_variables, render_chat
from wheelpit.server.protocol import DetokenizeRequest, TokenizeRequest
from wheelpit.server.responses import DetokenizeAnswer, TokenizeAnswer, json_response
from wheelpit.server.service import Service

INLINE_TOKENS = 10_000
"""More ids than this are decoded off the event loop."""


class TokenizeRoutes:
    """Text to token ids and back."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._tokenize_decoder = msgspec.json.Decoder(TokenizeRequest)
        self._detokenize_decoder = msgspec.json.Decoder(DetokenizeRequest)

    async def tokenize(self, request: Request) -> Response:
        """Return the token ids of a prompt, or of a conversation as the model would read it."""
        service = self._service
        limit = service.options.max_body_bytes
        body = await read_json(request, self._tokenize_decoder, limit)
        service.check_model(body.model)
        text, add_special_tokens = await self._text_of(body)
        check_chars(service, len(text))
        tokens = await service.tokenizer.encode_async(text, add_special_tokens)
        token_strs = None
        if body.return_token_strs:
            token_strs = [entry or "" for entry in service.tokenizer.convert_ids_to_tokens(tokens)]
        return json_response(
            TokenizeAnswer(
                count=len(tokens),
                max_model_len=service.model.max_model_len,
                tokens=tokens,
                token_strs=token_strs,
            )
        )

    async def _text_of(self, body: TokenizeRequest) -> tuple[str, bool]:
        if (body.prompt is None) == (body.messages is None):
            raise ValidationError("give either prompt or messages", parameter="prompt")
        if body.prompt is not None:
            return body.prompt, body.add_special_tokens is not False
        variables = dict(body.chat_template_kwargs or {})
        check_variables(variables)
        text = await render_chat(
            self._service,
            body.messages or [],
            variables,
            tools=body.tools,
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message,
        )
        return text, body.add_special_tokens is True

    async def detokenize(self, request: Request) -> Response:
        """Return the text of token ids."""
        service = self._service
        limit = service.options.max_body_bytes
        body = await read_json(request, self._detokenize_decoder, limit)
        service.check_model(body.model)
        highest = max(body.tokens, default=0)
        if highest > service.model.max_token_id:
            raise ValidationError(
                f"Token id {highest} is out of vocabulary", parameter="tokens", value=highest
            )
        tokenizer = service.tokenizer
        if len(body.tokens) <= INLINE_TOKENS:
            text = tokenizer.decode(body.tokens, skip_special_tokens=False)
        else:
            text = await asyncio.to_thread(tokenizer.decode, body.tokens, skip_special_tokens=False)
        return json_response(DetokenizeAnswer(text))
