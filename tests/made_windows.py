"""Windows of random tokens, as a text of some length would give them."""

from __future__ import annotations

import torch

from quantbench.tasks.text_windows import Windows
from tiny import VOCABULARY


def some_windows(n: int = 3, length: int = 24) -> Windows:
    tokens = torch.randint(2, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(5))
    return Windows(
        tokens=tokens,
        offsets=tuple(range(0, n * length, length)),
        n_bytes=(length - 1,) * n,
        document_ids=(0,) * n,
        clusters=tuple(f"c{i}" for i in range(n)),
        documents=("",),
        text_fingerprint="text",
        revision="r1",
        protocol_values={"kind": "test"},
    )
