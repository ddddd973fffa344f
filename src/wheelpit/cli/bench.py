"""`wheelpit bench`: load an OpenAI-compatible server and print what its clients would see."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wheelpit.bench.load import LoadPlan, run_load_blocking
from wheelpit.bench.report import print_report
from wheelpit.bench.target import PromptFormat
from wheelpit.bench.workload import Endpoint, LengthRange, Workload
from wheelpit.errors import ConfigError, ServerError


def bench(
    url: Annotated[str, typer.Option(help="The server, without /v1.")] = "http://127.0.0.1:8000",
    model: Annotated[str | None, typer.Option(help="Default: the first one listed.")] = None,
    num_prompts: Annotated[int, typer.Option(min=1)] = 64,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Closed loop: requests in flight.", show_default="16")
    ] = None,
    request_rate: Annotated[
        float | None, typer.Option(help="Open loop: Poisson arrivals, requests a second.")
    ] = None,
    input_tokens: Annotated[int, typer.Option(min=1)] = 128,
    output_tokens: Annotated[int, typer.Option(min=1)] = 64,
    input_range: Annotated[
        str | None, typer.Option(help="LOW:HIGH, uniform; replaces --input-tokens.")
    ] = None,
    output_range: Annotated[
        str | None, typer.Option(help="LOW:HIGH, uniform; replaces --output-tokens.")
    ] = None,
    endpoint: Annotated[Endpoint, typer.Option()] = Endpoint.COMPLETIONS,
    prompt_format: Annotated[
        PromptFormat, typer.Option(help="auto: token ids where the server takes them.")
    ] = PromptFormat.AUTO,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="The model's tokenizer.json, where the server cannot tokenize."),
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    api_key: Annotated[str | None, typer.Option()] = None,
    ignore_eos: Annotated[bool, typer.Option(help="Answers have exactly the asked length.")] = True,
    extra_body: Annotated[
        str | None,
        typer.Option(
            help='JSON merged into each request, such as {"user": "a"}; null removes a field.'
        ),
    ] = None,
    request_timeout: Annotated[
        float | None, typer.Option(help="Body field timeout: seconds that a request has in all.")
    ] = None,
    queue_timeout: Annotated[
        float | None, typer.Option(help="Body field: seconds until it must have started.")
    ] = None,
    ttft_timeout: Annotated[
        float | None, typer.Option(help="Body field: seconds until it must have a token.")
    ] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Requests before the clock starts.")] = 1,
    timeout_s: Annotated[float, typer.Option(help="How long the client itself waits.")] = 600.0,
    json_only: Annotated[bool, typer.Option("--json-only", help="Print no table.")] = False,
) -> None:
    """Measure latency and throughput of an OpenAI-compatible server.

    The last line printed is JSON. Requests that were refused (429, 503), or ended at a deadline of
    theirs, are counted apart from errors. Exits with 1 when no request succeeded.
    """
    if concurrency is not None and request_rate is not None:
        raise typer.BadParameter("give --concurrency (closed loop) or --request-rate (open loop)")
    try:
        workload = Workload(
            num_prompts=num_prompts,
            input_tokens=_lengths(input_range, input_tokens),
            output_tokens=_lengths(output_range, output_tokens),
            endpoint=endpoint,
            seed=seed,
            ignore_eos=ignore_eos,
            timeout=request_timeout,
            queue_timeout=queue_timeout,
            ttft_timeout=ttft_timeout,
            extra_body=_json_object(extra_body),
        )
        plan = LoadPlan(
            url=url,
            model=model,
            concurrency=concurrency or 16,
            request_rate=request_rate,
            num_warmup=warmup,
            prompt_format=prompt_format,
            tokenizer_path=tokenizer,
            api_key=api_key,
            timeout_s=timeout_s,
        )
        result = run_load_blocking(plan, workload)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    except ServerError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    settings = {
        **asdict(workload),
        "url": url,
        "concurrency": plan.concurrency if request_rate is None else None,
        "request_rate": request_rate,
        "warmup": warmup,
    }
    print_report(result, settings, is_json_only=json_only)
    if result.summary.num_succeeded == 0:
        raise typer.Exit(1)


def _lengths(range_text: str | None, tokens: int) -> LengthRange:
    return LengthRange(tokens, tokens) if range_text is None else LengthRange.parse(range_text)


def _json_object(text: str | None) -> dict[str, object]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--extra-body is {text!r}: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"--extra-body is {text!r}: give a JSON object")
    return value
