"""Which sequences go through the model together.

Sequences of one length do, so nothing is ever padded. Where a quantized model lets tokens of a sequence, or of a batch,
act on each other, each sequence goes through alone: what it gives never depends on those beside it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from quantbench.core.mixing import Mixing
from quantbench.core.out_of_memory import ran_out, release

log = logging.getLogger("quantbench")

Made = TypeVar("Made")

BATCH_TOKENS = 4096
"""Most tokens that go through the model at once."""


def alone(mixing: Mixing) -> bool:
    """Whether each sequence must be computed as it is: not in a batch, and not as the beginning of a longer one."""
    return mixing >= Mixing.SEQUENCE


def batches(lengths: Sequence[int], mixing: Mixing, budget: int = BATCH_TOKENS) -> list[list[int]]:
    """Indices grouped by equal length, in groups of at most `budget` tokens (but at least one sequence); or alone."""
    if alone(mixing):
        return [[index] for index in range(len(lengths))]
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(length, []).append(index)
    found = []
    for length in sorted(groups):
        size = max(1, budget // length)
        found += [groups[length][i : i + size] for i in range(0, len(groups[length]), size)]
    return found


def run_batches(
    lengths: Sequence[int], mixing: Mixing, device: torch.device, run: Callable[[list[int]], Made]
) -> Iterator[tuple[list[int], Made]]:
    """Each batch of sequences of these lengths, and what `run` makes of it.

    Where the device has no memory left for a batch it is halved, and those that come later have no more tokens, which
    is said once; raises what torch does where a single sequence is too much.
    """
    waiting = deque(batches(lengths, mixing))
    most, said = BATCH_TOKENS, False
    while waiting:
        batch = waiting.popleft()
        size = max(1, most // lengths[batch[0]])
        if len(batch) > size:
            waiting.extendleft(reversed([batch[i : i + size] for i in range(0, len(batch), size)]))
            continue
        try:
            made = run(batch)
        except (MemoryError, RuntimeError) as error:
            if len(batch) == 1 or not ran_out(error):
                raise
        else:
            yield batch, made
            continue
        # Not while the error is handled: it holds on to the frames it came through, and these to their tensors.
        release(device)
        if not said:
            log.warning(
                "out of memory on %s with %d sequences of %d tokens: from here on fewer go through the model at once",
                device,
                len(batch),
                lengths[batch[0]],
            )
        said = True
        most = len(batch) // 2 * lengths[batch[0]]
        waiting.appendleft(batch)
