"""`wheelpit generate`: answer prompts offline, in this process."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wheelpit.errors import ConfigError

if TYPE_CHECKING:
    from wheelpit.llm import LLM
    from wheelpit.request import RequestOutput, SamplingParams


def generate(
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT...", help='Texts; "-" reads standard input.')
    ],
    model: Annotated[
        str, typer.Option(help='"builtin", a folder, or a hub id such as Qwen/Qwen3-0.6B.')
    ] = "builtin",
    use_chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--raw",
            help="Put prompts through the chat template, or continue them as they are.",
            show_default="--chat if the model has a template",
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message (with --chat).")] = None,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, max=2.0, show_default="the model's, or 1")
    ] = None,
    top_p: Annotated[float | None, typer.Option()] = None,
    top_k: Annotated[int | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option(help="Makes the output repeat.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Stop string; several allowed.")] = None,
    max_model_len: Annotated[str | None, typer.Option(help="Context, such as 4096 or 16k.")] = None,
    dtype: Annotated[str, typer.Option()] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    is_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Answer PROMPTs without a server and print the answers."""
    if system is not None and use_chat is False:
        raise ConfigError("--system needs a chat template: leave out --raw")
    texts = [sys.stdin.read() if prompt == "-" else prompt for prompt in prompts]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    from wheelpit.llm import LLM

    llm = LLM(model, max_model_len=max_model_len, dtype=dtype, device=device)
    params = _params(
        llm,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        stop=stop,
    )
    if use_chat is None:
        use_chat = llm.get_tokenizer().chat_template is not None
    if use_chat:
        first = [] if system is None else [{"role": "system", "content": system}]
        outputs = llm.chat([[*first, {"role": "user", "content": text}] for text in texts], params)
    else:
        outputs = llm.generate(texts, params)
    for text, output in zip(texts, outputs, strict=True):
        _print(text, output, is_json, has_title=len(texts) > 1)


def _params(llm: LLM, **given: Any) -> SamplingParams:
    """Lay what was asked for over what the model recommends."""
    from wheelpit.request import SamplingParams

    recommended = llm.model_config.default_sampling_params
    asked = {name: value for name, value in given.items() if value is not None}
    return SamplingParams(**{**recommended, **asked})


def _print(prompt: str, output: RequestOutput, is_json: bool, has_title: bool) -> None:
    completion = output.outputs[0]
    if is_json:
        fields = {
            "prompt": prompt,
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "prompt_tokens": len(output.prompt_token_ids or ()),
            "completion_tokens": len(completion.token_ids),
        }
        print(json.dumps(fields, ensure_ascii=False))
        return
    if has_title:
        print(f"\n# {' '.join(prompt.split())[:70]}")
    print(completion.text)
