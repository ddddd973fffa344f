"""LLM: offline generation in the calling process. The same core as the online engine, no socket."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from wheelpit.engine.admission import Admission, Limits
from wheelpit.engine.arg_utils import EngineArgs
from wheelpit.engine.arrival import PriorityWarning
from wheelpit.engine.core import EngineCore
from wheelpit.engine.input_processor import InputProcessor, parse_prompt
from wheelpit.engine.messages import Abort, AddRequest
from wheelpit.engine.request_book import RequestBook
from wheelpit.engine.request_state import RequestState
from wheelpit.engine.served_model import ServedModel, load_model_config, load_served_model
from wheelpit.request import PromptType, RequestOutput, RequestOutputKind, SamplingParams
from wheelpit.text.tokenizer import Tokenizer

Messages = Sequence[Mapping[str, Any]]


class LLM:
    """Generate for a list of prompts and return when all are done.

    Takes every field of EngineArgs as a keyword. Not for use from several threads.
    """

    def __init__(self, model: str = "builtin", **engine_args: Any) -> None:
        """Load the model; blocks. Raises ConfigError, ModelLoadError, TypeError (unknown name)."""
        engine_args.setdefault("disable_log_stats", True)
        args = EngineArgs(model=model, **engine_args)
        folder, hf = load_model_config(args)
        config = args.create_engine_config(str(folder), hf.max_position_embeddings)
        self.model_config: ServedModel = load_served_model(
            args, folder, hf, config.model.max_model_len
        )
        # Here, so that importing this module brings no torch.
        from wheelpit.runner.model_runner import ModelRunner

        runner = ModelRunner(config)
        self._core = EngineCore(config, runner, time.monotonic)
        self._admission = Admission(Limits(), config.scheduler)
        self._inputs = InputProcessor(
            self.model_config, config.model.seed, runner.num_blocks * runner.block_size
        )
        self._request_ids = itertools.count()
        self._log_stats = not args.disable_log_stats
        self._warn_of_priority = PriorityWarning(config.scheduler.policy)
        self._book = RequestBook(self._admission, time.monotonic)
        self._book.open_engine(self._send)

    def generate(
        self,
        prompts: PromptType | Sequence[PromptType],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        lora_request: None = None,
        priority: Sequence[int] | None = None,
        tokenization_kwargs: dict[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Complete each prompt; outputs are in the prompts' order.

        sampling_params: one for all, or one per prompt; None is `get_default_sampling_params()`.
        use_tqdm: show a progress bar (on a terminal, for more than one prompt).
        Raises ValueError or TypeError for a bad prompt or parameter; then nothing was run.
        """
        if lora_request is not None:
            raise ValueError("lora_request is not supported")
        listed = _as_prompts(prompts)
        params = self._params_for_each(sampling_params, len(listed))
        priorities = [0] * len(listed) if priority is None else list(priority)
        if len(priorities) != len(listed):
            raise ValueError(f"{len(listed)} prompts but {len(priorities)} priorities")
        self._warn_of_priority(next(filter(None, priorities), 0))
        add_special_tokens = (tokenization_kwargs or {}).get("add_special_tokens", True)
        waiting: list[RequestState] = []
        try:
            for prompt, one, rank in zip(listed, params, priorities, strict=True):
                waiting.append(self._prepare(prompt, one, rank, add_special_tokens))
        except BaseException:
            for state in waiting:
                state.reservation.release(time.monotonic())
            raise
        return self._run(waiting, show_progress=use_tqdm and len(waiting) > 1)

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation, or each of several, through the model's chat template."""
        conversations: Sequence[Any] = messages
        if messages and isinstance(messages[0], Mapping):
            conversations = [messages]
        template = self.model_config.chat_template()
        prompts = [
            template.render(
                conversation,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **dict(chat_template_kwargs or {}),
            )
            for conversation in conversations
        ]
        return self.generate(
            prompts,
            sampling_params,
            use_tqdm=use_tqdm,
            # The template writes the special tokens itself.
            tokenization_kwargs={"add_special_tokens": False},
        )

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer. Raises ValueError if it was left out."""
        if self.model_config.tokenizer is None:
            raise ValueError("this engine has no tokenizer (skip_tokenizer_init)")
        return self.model_config.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's generation_config.json recommends."""
        return SamplingParams(**self.model_config.default_sampling_params)

    def reset_prefix_cache(self) -> bool:
        """Forget all cached prefixes."""
        return self._core.reset_prefix_cache()

    def _params_for_each(
        self, given: SamplingParams | Sequence[SamplingParams] | None, count: int
    ) -> list[SamplingParams]:
        if given is None:
            given = self.get_default_sampling_params()
        if isinstance(given, SamplingParams):
            return [given] * count
        if len(given) != count:
            raise ValueError(
                f"The lengths of prompts ({count}) and sampling_params ({len(given)}) must match"
            )
        return list(given)

    def _prepare(
        self, prompt: PromptType, given: SamplingParams, priority: int, add_special_tokens: bool
    ) -> RequestState:
        """Check one prompt and make its state; nothing reaches the core yet."""
        params = self._inputs.check_params(given)
        params.output_kind = RequestOutputKind.FINAL_ONLY
        parsed = parse_prompt(prompt)
        token_ids = parsed.token_ids
        if token_ids is None:
            assert parsed.text is not None
            self._inputs.check_text(parsed.text)
            token_ids = self.get_tokenizer().encode(parsed.text, add_special_tokens)
        self._inputs.check_token_ids(token_ids)
        request_id = str(next(self._request_ids))
        reservation = self._admission.reserve(
            request_id,
            time.monotonic(),
            num_tokens=len(token_ids),
            num_sequences=params.n,
            priority=priority,
        )
        messages = self._inputs.build(request_id, token_ids, params, reservation, parsed.cache_salt)
        return RequestState(
            reservation,
            parsed.text,
            messages,
            params,
            self.model_config.tokenizer,
            with_metrics=self._log_stats,
        )

    def _run(self, states: list[RequestState], *, show_progress: bool) -> list[RequestOutput]:
        for state in states:
            self._book.add(state)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        console = Console(stderr=True)
        show_progress = show_progress and console.is_terminal
        with Progress(
            *columns, console=console, disable=not show_progress, transient=True
        ) as progress:
            task = progress.add_task("Processed prompts", total=len(states))
            try:
                while len(self._book):
                    expired = self._core.expire()
                    self._book.on_step(expired or self._core.step())
                    progress.update(task, completed=len(states) - len(self._book))
            except BaseException:
                # Ctrl-C, say: the next call must not find these still running.
                self._book.abort_all()
                raise
        outputs = []
        for state in states:
            output = state.take()
            assert output is not None, f"request {state.request_id} did not finish"
            outputs.append(output)
        return outputs

    def _send(self, message: AddRequest | Abort) -> None:
        if isinstance(message, AddRequest):
            self._core.add(message)
        else:
            self._core.abort(message.request_ids)


def _as_prompts(prompts: PromptType | Sequence[PromptType]) -> list[PromptType]:
    """One prompt or many: a list of ints is one prompt, any other list is many."""
    if isinstance(prompts, (str, dict)):
        return [prompts]
    listed: list[Any] = list(prompts)
    if listed and all(isinstance(item, int) for item in listed):
        return [listed]
    return listed
