"""Run the model: the engine's only owner of weights and of the KV cache's memory.

Built and called by the engine process (`engine/core.py`), or by `LLM` in the caller's. A step is
stateless but for the cache: running the same batch again gives the same tokens.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from wheelpit.config import EngineConfig
from wheelpit.kernels.build import Build
from wheelpit.layers.placement import Placement
from wheelpit.models.config import ModelConfig
from wheelpit.models.registry import Model, build_model
from wheelpit.models.weights import load_dummy_weights, load_weights
from wheelpit.request import SamplingParams
from wheelpit.runner.dtype import resolve_device, resolve_dtype
from wheelpit.runner.inputs import InputLayout, ModelInputs, PromptScores, build_inputs
from wheelpit.runner.kernel_choice import choose_kernels, open_library
from wheelpit.runner.kv_cache import allocate_cache, choose_num_blocks
from wheelpit.runner.logprobs import score_tokens
from wheelpit.runner.recorded_decode import RecordedDecodes
from wheelpit.runner.sampler import sample
from wheelpit.runner.step_threads import StepThreads
from wheelpit.runner.token_history import TokenHistory
from wheelpit.scheduling.batch import SampledToken, ScheduledBatch, ScheduledSequence
from wheelpit.scheduling.logprobs import TokenLogprobs
from wheelpit.scheduling.sequence import Sequence

log = logging.getLogger(__name__)

SCORED_ROWS = 256
"""prompt_logprobs are computed in slices of this many rows: [rows, V] float32 may be large."""


def _ignore_phase(name: str, seconds: float) -> None:
    pass


class ModelRunner:
    """One model on one device.

    Its constructor raises ModelLoadError for the model's faults and ConfigError for the
    configuration's. `forward_s` sums the seconds spent in the model's forward pass.
    """

    def __init__(
        self,
        config: EngineConfig,
        on_phase: Callable[[str, float], None] = _ignore_phase,
        build: Build | None = None,
    ) -> None:
        """on_phase: told the name and the seconds of each part of the start that has ended.
        build: the compilation of kernels, if it was started already.
        """
        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        started = time.perf_counter()
        folder = Path(config.model.folder)
        model_config = ModelConfig.from_folder(folder)
        device = resolve_device(config)
        library = open_library(config, device, build)
        dtype, self.compute_plan = resolve_dtype(
            config, model_config, device, lambda dtype: choose_kernels(library, dtype).operations
        )
        self.dtype = str(dtype).removeprefix("torch.")
        self.device = device.type
        self.vocab_size = model_config.vocab_size
        self.block_size = config.cache.block_size
        kernels = choose_kernels(library, dtype)
        placement = Placement(dtype, device, kernels.operations, self.compute_plan.plain_rows)
        self._threads = StepThreads(self.compute_plan, kernels.operations, model_config)
        self._model = _load_model(config, model_config, placement)
        on_phase("load", time.perf_counter() - started)
        started = time.perf_counter()
        self.num_blocks = choose_num_blocks(config, model_config, dtype, device)
        self._cache = allocate_cache(model_config, self.block_size, self.num_blocks, dtype, device)
        self._layout = InputLayout(
            block_size=self.block_size,
            sliding_window=model_config.sliding_window,
            dtype=dtype,
            device=device,
            pads_decodes=kernels.operations.pads_decodes,
        )
        self._draw = kernels.draw
        self._history = TokenHistory()
        self._recorded = RecordedDecodes(
            self._model,
            self._cache,
            self._layout,
            kernels.operations,
            num_positions=config.model.max_model_len,
            most_rows=self.compute_plan.plain_rows,
        )
        self.forward_s = 0.0
        self._warm_up(config)
        on_phase("warm up", time.perf_counter() - started)
        log.info(
            "%s on %s in %s, %s, %s; KV cache of %d blocks of %d tokens",
            model_config.architecture,
            self.device,
            self.dtype,
            kernels.operations.name,
            self._threads,
            self.num_blocks,
            self.block_size,
        )

    @torch.inference_mode()
    def run(self, batch: ScheduledBatch) -> list[SampledToken]:
        """Compute the batch's tokens and answer in its order. Safe to repeat after an error.

        Raises MemoryError when the device or the machine has not enough for a step so large.
        """
        try:
            return self._run(batch)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            reason = str(error)
        finally:
            self._threads.restore()
        # Here, where the failed step's tensors are gone with its traceback.
        if self.device == "cuda":
            torch.cuda.empty_cache()
        raise MemoryError(reason)

    def _run(self, batch: ScheduledBatch) -> list[SampledToken]:
        inputs, sampling = build_inputs(batch, self._layout, self._history)
        self._threads.prepare(inputs)
        hidden, logits = self.execute(inputs)
        answers = [SampledToken()] * len(batch.sequences)
        tokens = sample(logits, sampling, self._draw) if sampling.num_rows else []
        for index, token in zip(sampling.indices, tokens, strict=True):
            answers[index] = token
        for scores in inputs.prompt_scores:
            found = self._score_prompt(hidden, scores)
            answers[scores.index] = replace(answers[scores.index], prompt_logprobs=found)
        return answers

    def execute(self, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
        """Run the model and write the cache.

        Returns the hidden states [T, E] of all rows, and the logits [B, V] of the sampling ones.
        """
        started = time.perf_counter()
        if inputs.fresh_block_ids is not None:
            self._cache.clear(inputs.fresh_block_ids)
        hidden = self._recorded.run(inputs)
        if hidden is None:
            hidden = self._model(
                inputs.token_ids, inputs.positions, self._cache.layers, inputs.attention
            )
        logits = self._model.compute_logits(hidden.index_select(0, inputs.sample_rows))
        self.forward_s += time.perf_counter() - started
        return hidden, logits

    def _score_prompt(self, hidden: Tensor, scores: PromptScores) -> tuple[TokenLogprobs, ...]:
        found: list[TokenLogprobs] = []
        for start in range(0, len(scores.next_token_ids), SCORED_ROWS):
            token_ids = scores.next_token_ids[start : start + SCORED_ROWS]
            first = scores.first_row + start
            logits = self._model.compute_logits(hidden[first : first + len(token_ids)])
            num_tops = [scores.num_top] * len(token_ids)
            found += score_tokens(logits.log_softmax(dim=-1), token_ids, num_tops)
        return tuple(found)

    def _warm_up(self, config: EngineConfig) -> None:
        """Run a prefill and a decode, so that the first request finds every kernel ready."""
        length = min(16, config.model.max_model_len - 1)
        sequence = Sequence(
            request_id="warm-up",
            token_ids=[0] * length,
            num_prompt_tokens=length,
            params=SamplingParams(temperature=0.0),
            max_tokens=1,
            seed=0,
            block_ids=list(range(length // self.block_size + 1)),
        )
        self.run(ScheduledBatch((ScheduledSequence(sequence, 0, length, True),)))
        sequence.token_ids.append(0)
        self.run(ScheduledBatch((ScheduledSequence(sequence, length, 1, True),)))
        self.forward_s = 0.0


def _is_out_of_memory(error: RuntimeError) -> bool:
    # torch has a type of its own for accelerators only.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _load_model(config: EngineConfig, model_config: ModelConfig, placement: Placement) -> Model:
    model = build_model(model_config, config.model.max_model_len, placement)
    if config.model.load_format == "dummy":
        load_dummy_weights(model, config.model.seed)
    else:
        load_weights(model, Path(config.model.folder))
    return model
