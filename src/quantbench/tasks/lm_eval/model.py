"""The live model as lm-eval sees it: its HFLM, with what evaluation of a quantized model needs besides."""

from __future__ import annotations

import contextlib
import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from quantbench.core.errors import ModelError
from quantbench.core.mixing import Mixing
from quantbench.core.progress import ProgressCallback
from quantbench.models.handle import ModelHandle

SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""What of a generation_config.json counts."""

CPU_BATCH = 4
"""Prompts at a time on a CPU, where memory does not say how many are best."""

Document = tuple[str, int]
"""A subtask's name and the number of one of its documents."""


class LiveModel(HFLM):  # type: ignore[misc]
    """HFLM on a model that is loaded, with a count of what it does.

    Numbers are HFLM's. What is generated follows the task's settings alone: of the model's generation_config.json only
    the special tokens count, which say where a text ends. A model whose operations let tokens act on each other reads
    one prompt at a time, without padding; one that needs whole sequences generates without a cache.

    truncated   documents a prompt of which lost its beginning
    unfinished  documents an answer to which was cut at the most tokens it may have
    n_tokens    tokens predicted for each document: of its choices, of its text, or of what was generated
    """

    def __init__(
        self,
        handle: ModelHandle,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int | str,
        max_length: int | None,
        progress: ProgressCallback,
        n_requests: int,
    ) -> None:
        if handle.mixing > Mixing.NONE:  # prompts are padded before, where text is generated
            batch_size = 1
        elif batch_size == "auto" and model.device.type == "cpu":
            batch_size = CPU_BATCH
        with _weights_left_alone(model):
            # A copy of the tokenizer, since HFLM gives it a padding token.
            super().__init__(
                pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size, max_length=max_length
            )
        self.whole_sequences = handle.whole_sequences
        self.truncated: set[Document] = set()
        self.unfinished: set[Document] = set()
        self.n_tokens: dict[Document, int] = defaultdict(int)
        self.cache_hook = _Counter(progress, n_requests)  # called for every answer, in the order they are generated in
        self._asked: Sequence[Any] = ()
        self._longest = 0

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:  # noqa: ARG002
        """Log p of each answer behind its prompt, and whether it is the greedy one; counts tokens and cut prompts."""
        self._asked = requests
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        self._asked = ()
        return found

    def _loglikelihood_tokens(self, requests: Sequence[Any], **options: Any) -> list[tuple[float, bool]]:
        for asked, (_, context, continuation) in zip(self._asked, requests, strict=bool(self._asked)):
            document = (asked.task_name, asked.doc_id)
            self.n_tokens[document] += len(continuation)
            if len(continuation) > self.max_length:
                raise ModelError(
                    f"{asked.task_name}, document {asked.doc_id}: an answer of {len(continuation)} tokens is longer "
                    f"than the {self.max_length} tokens that are read at a time: leave this task out"
                )
            if len(context) + len(continuation) > self.max_length + 1:
                self.truncated.add(document)
        found: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, **options)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:  # noqa: ARG002
        """Log p of each text; counts its tokens."""
        for asked in requests:
            n_tokens = len(self.tok_encode(asked.args[0]))
            self.n_tokens[asked.task_name, asked.doc_id] += n_tokens
            self._longest = max(self._longest, n_tokens)
        found: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=True)
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:  # noqa: ARG002
        """What is written behind each prompt; counts its tokens and cut prompts."""
        for asked in requests:
            prompt, options = asked.args
            room = normalize_gen_kwargs(options, self.max_gen_toks)["max_gen_toks"]
            n_tokens = len(self.tok_encode(prompt))
            self._longest = max(self._longest, n_tokens + room)
            if n_tokens > self.max_length - room:
                self.truncated.add((asked.task_name, asked.doc_id))
        found: list[str] = super().generate_until(requests, disable_tqdm=True)
        cut = self.cache_hook.cut
        for asked, text in zip(requests, found, strict=True):
            if cut.get(asked.args[0]):
                self.unfinished.add((asked.task_name, asked.doc_id))
            self.n_tokens[asked.task_name, asked.doc_id] += len(self.tok_encode(text, add_special_tokens=False))
        return found

    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
        if requests is None:  # HFLM would try prompts as long as the model takes: the longest there is will do
            length = min(self._longest, self.max_length)
            requests, pos = [(None, [0] * length, [0])], 0
        size: int = super()._detect_batch_size(requests, pos)
        return size

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **options: Any) -> torch.Tensor:
        whole = _without_cache(self.model) if self.whole_sequences else contextlib.nullcontext()
        with only_special_tokens(self.model), whole:
            tokens: torch.Tensor = super()._model_generate(context, max_length, stop, **options)
        new = tokens[:, context.shape[1] :].tolist()
        full = tokens.shape[1] >= max_length
        self.cache_hook.generated += [full and not self._ended(row, stop) for row in new]
        return tokens

    def _ended(self, tokens: Sequence[int], stop: Sequence[str]) -> bool:
        text = self.tokenizer.decode(tokens)
        return self.eot_token_id in tokens or any(word in text for word in stop if word)


class _Counter:
    """Counts answers where HFLM would store them.

    generated  of answers that are still to come here, whether each was cut
    cut        prompts -> whether the answer was
    """

    def __init__(self, progress: ProgressCallback, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total
        self.generated: list[bool] = []
        self.cut: dict[str, bool] = {}

    def add_partial(self, _kind: str, request: Any, _answer: object) -> None:
        if self.generated:
            self.cut[request[0]] = self.generated.pop(0)
        self._done = min(self._done + 1, self._total)
        self._progress(self._done, self._total)


@contextlib.contextmanager
def _weights_left_alone(model: PreTrainedModel) -> Iterator[None]:
    """HFLM ties the head to the embeddings, if the configuration says so: not those that quantization set apart."""
    model.tie_weights = lambda *_args, **_options: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.tie_weights


@contextlib.contextmanager
def only_special_tokens(model: PreTrainedModel) -> Iterator[None]:
    """The model's generation_config.json would act on what a task leaves open: penalties, beams, numbers of tokens."""
    own = model.generation_config
    if own is not None:
        kept = {key: value for key in SPECIAL_TOKENS if (value := getattr(own, key, None)) is not None}
        model.generation_config = GenerationConfig(**kept)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        model.generation_config = own


@contextlib.contextmanager
def _without_cache(model: PreTrainedModel) -> Iterator[None]:
    generate: Any = model.generate

    def whole(**options: Any) -> Any:
        return generate(**(options | {"use_cache": False}))

    model.generate = whole  # type: ignore[assignment]
    try:
        yield
    finally:
        del model.generate
