"""A model in two halves: hidden states of a window, then logits of a few positions at a time.

The logits of a whole window can be larger than the model (2048 x 256,000 floats are 2 GB); its hidden states are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from quantbench.core.errors import ModelError
from quantbench.models.handle import ModelHandle, decoder, run_decoder
from quantbench.models.head import head_in_place, head_of, head_on, wide_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK_BYTES = 128 << 20
"""Most bytes the float32 logits of one chunk take."""

BLOCK_BYTES = 4 << 20
"""Most bytes of float64 log-probabilities at a time: few enough for a processor's cache, which halves the time."""


class SplitModel:
    """Runs the decoder and the head of a causal language model apart from each other.

    Both run through the model's own forward, so whatever it does between and after them (Gemma2's soft cap, a logit
    scale) is done here, too. The head computes in float32 whatever the model's dtype, and on `head_device` (None: where
    it lies).
    """

    def __init__(self, model: PreTrainedModel, head_device: torch.device | None = None) -> None:
        self.model = model
        self._decoder = decoder(model)
        self._own = head_of(model)
        self._device = head_device
        self._head = self._usable(self._own)
        self._output_type: Any = None

    def original_head(self, handle: ModelHandle) -> nn.Module:
        """The full-precision model's head, for `logits`: the same as is used anyway if nothing was done to it."""
        original = handle.original_head()
        return self._head if original is self._own else self._usable(original)

    def _usable(self, head: nn.Module) -> nn.Module:
        wide = wide_head(head)
        return wide if self._device is None else head_on(wide, self._device)

    def positions_per_chunk(self) -> int:
        """How many positions' logits fit in CHUNK_BYTES."""
        vocabulary = self.model.config.get_text_config().vocab_size
        return max(1, int(CHUNK_BYTES // (4 * vocabulary)))

    def hidden(self, tokens: Tensor) -> Tensor:
        """The decoder's last hidden states [L, d] for tokens int64 [1, L], as the head reads them."""
        return self.hidden_batch(tokens)[0]

    def hidden_batch(self, tokens: Tensor) -> Tensor:
        """The same for a batch of sequences of one length: [B, L, d] for tokens int64 [B, L]."""
        seen = run_decoder(self.model, tokens)
        if not seen or not hasattr(seen[0], "last_hidden_state"):
            raise ModelError(f"model class {type(self.model).__name__}: its decoder gives no last hidden state")
        self._output_type = type(seen[0])
        states = seen[0].last_hidden_state
        assert isinstance(states, Tensor)
        return states

    def logits(self, hidden: Tensor, head: nn.Module | None = None) -> Tensor:
        """Logits float32 [T, vocabulary] of hidden states [T, d]; `hidden` must have run before.

        head  one of `original_head`; None: the head that the model had when this was made
        """
        dummy = torch.zeros(1, len(hidden), dtype=torch.int64, device=hidden.device)
        output = self._output_type(last_hidden_state=hidden[None])
        with self._decoder_returning(output), head_in_place(self.model, head or self._head):
            logits = self.model(input_ids=dummy, use_cache=False).logits[0]
        assert isinstance(logits, Tensor)
        return logits.float()

    @contextmanager
    def _decoder_returning(self, output: Any) -> Iterator[None]:
        self._decoder.forward = lambda *_args, **_kwargs: output
        try:
            yield
        finally:
            del self._decoder.forward


def blocks(logits: Tensor) -> Iterator[slice]:
    """Slices of T for logits [T, V]: float64 [T_i, V] takes BLOCK_BYTES, and CHUNK_BYTES on a GPU, which has no such
    cache, and where every operation on a block has a cost of its own.
    """
    most = BLOCK_BYTES if logits.device.type == "cpu" else CHUNK_BYTES
    step = max(1, most // (8 * logits.shape[1]))
    return (slice(start, start + step) for start in range(0, len(logits), step))


def log_probabilities(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Log-probabilities float64 [T_i, V] of logits [T, V], a block of positions at a time, with its slice of T.

    In float32 each log-probability is off by up to half a unit of the last digit of log Z, the same for a whole
    position, and sums over a vocabulary are biased: as much as a KL divergence of 8-bit weights has.
    """
    for block in blocks(logits):
        yield block, logits[block].double().log_softmax(1)
