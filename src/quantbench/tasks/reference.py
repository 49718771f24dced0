"""The full-precision reference of a task: the decoder's last hidden states.

They are some hundred times smaller than the log-probabilities of a whole vocabulary, and the original head turns them
back into exactly the logits of the full-precision model.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from quantbench.core import tensors
from quantbench.core.errors import StoreError

KEY = "last_hidden_state"
REMEDY = "Delete it and evaluate the full-precision model again"


class Reference:
    """Hidden states [W, L - 1, d], in the model's dtype, of the positions of W windows that predict a token.

    One that captures takes what the full-precision model computes and is written when the last window is through.
    """

    def __init__(self, path: Path, hidden: Tensor | None) -> None:
        self._path = path
        self._stored = hidden
        self._captured: list[Tensor] = []

    @classmethod
    def capture(cls, path: Path) -> Reference:
        """A reference to be filled by evaluating the full-precision model, and then written to `path`."""
        return cls(path, None)

    @classmethod
    def load(cls, path: Path) -> Reference:
        """A reference written before. Raises StoreError if it is missing or damaged."""
        try:
            hidden = tensors.load(path)[KEY]
        except (StoreError, KeyError) as error:
            problem = "damaged" if path.exists() else "missing"
            raise StoreError(f"the full-precision reference {path} is {problem}. {REMEDY}") from error
        return cls(path, hidden)

    def window(self, index: int, own: Tensor) -> Tensor:
        """The full-precision hidden states [L - 1, d] of a window; `own` are those of the model that is evaluated.

        When capturing they are the same. Raises StoreError if the stored ones are of another shape or dtype.
        """
        if self._stored is None:
            self._captured.append(own.cpu())
            return own
        if index >= len(self._stored) or self._stored[index].shape != own.shape or self._stored.dtype != own.dtype:
            raise StoreError(
                f"{self._path} holds {self._stored.dtype} {tuple(self._stored.shape)}, but window {index} needs "
                f"{own.dtype} {tuple(own.shape)}: it belongs to another model or protocol. {REMEDY}"
            )
        return self._stored[index].to(own.device)

    def finish(self) -> None:
        """Write what was captured; does nothing for a reference that was loaded."""
        if self._stored is None:
            tensors.save(self._path, {KEY: torch.stack(self._captured)})
