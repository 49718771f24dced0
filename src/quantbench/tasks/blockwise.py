"""Windows through a model that memory does not hold: each block is read once for many windows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from quantbench.models.structure import find_blocks
from quantbench.pipeline.capture import block_on, capture, replaced_forwards, run_block
from quantbench.tasks.logits import SplitModel

STATES_BYTES = 256 * 2**20
"""Most bytes of hidden states of the windows that go through a block together."""


def blockwise(split: SplitModel, windows: Tensor, device: torch.device) -> Iterator[Tensor]:
    """The decoder's last hidden states [L, d], on `device`, of each of the windows int64 [W, L].

    They are those that each window gives by itself (`SplitModel.hidden`), to the bit. The model is on the CPU, and one
    block at a time on `device`.
    """
    model = split.model
    _, blocks = find_blocks(model)
    width = model.config.get_text_config().hidden_size
    together = max(1, STATES_BYTES // (windows.shape[1] * width * model.dtype.itemsize))
    for start in range(0, len(windows), together):
        some = windows[start : start + together].cpu()
        captured = capture(model, blocks, some)
        states, captured.hidden = captured.hidden, []
        for block, calls in zip(blocks, captured.calls, strict=True):
            with block_on(block, device):
                states = [run_block(block, one, call) for one, call in zip(states, calls, strict=True)]
        in_tuple = captured.returns_tuple[type(blocks[-1])]
        for tokens, last in zip(some, states, strict=True):
            output = (last.cpu(),) if in_tuple else last.cpu()
            with replaced_forwards(blocks, lambda *_args, output=output, **_kwargs: output):
                yield split.hidden(tokens[None]).to(device)
