"""Windows of a text as one tokenizer sees them, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from quantbench.core.errors import ConfigError
from quantbench.core.progress import ProgressCallback
from quantbench.metrics.positions import BUCKETS, NAMES, estimates
from quantbench.models.folder import max_length
from quantbench.models.handle import ModelHandle
from quantbench.tasks.evaluate import evaluate
from quantbench.tasks.reference import Reference
from quantbench.tasks.task import Outcome

OWN = ("perplexity", "nll", "bits_per_byte")
"""Metrics of a model by itself."""

RELATIVE = ("kl", *NAMES, *BUCKETS, "reverse_kl", "top1_agreement", "rms_dp")
"""Metrics against full precision."""


@dataclass(frozen=True, eq=False)
class Windows:
    """The test set of W windows of L tokens; in each, every token but the first is scored.

    Each window is compared with what the full-precision model makes of it (uses_reference).

    tokens            int64 [W, L]
    offsets           where each begins in the tokenized text, in tokens
    n_bytes           UTF-8 bytes of the text its scored tokens stand for
    document_ids      number of the document its first scored token begins in
    clusters          name of the cluster it lies in (quantbench.tasks.window_clusters)
    documents         all documents of the text
    text_fingerprint  sha256 of the text; revision: its source's, as found
    protocol_values   everything that fixes a score, plain values
    listing           where the documents stand in their source (Documents.listing): stored beside the score
    contents          none: documents are compared as a whole
    """

    tokens: Tensor
    offsets: tuple[int, ...]
    n_bytes: tuple[int, ...]
    document_ids: tuple[int, ...]
    clusters: tuple[str, ...]
    documents: tuple[str, ...] = field(repr=False)
    text_fingerprint: str
    revision: str
    protocol_values: dict[str, Any]
    listing: str = field(default="", repr=False)
    contents: ClassVar[tuple[str, ...]] = ()
    metrics: ClassVar[tuple[str, ...]] = (*OWN, *RELATIVE)
    uses_reference: ClassVar[bool] = True

    @property
    def token_rows(self) -> Sequence[Tensor]:
        """The windows."""
        return list(self.tokens)

    @property
    def n_positions(self) -> int:
        """W x L."""
        return self.tokens.numel()

    def check_length(self, limit: int | None, task: str) -> None:
        """Raise ConfigError if the windows are longer than the `limit` positions a model takes."""
        length = self.tokens.shape[1]
        if limit is not None and length > limit:
            raise ConfigError(
                f"task {task}: windows of {length} tokens, but the model takes at most {limit}; "
                f"use scale.window={limit} or less"
            )

    def score(
        self,
        handle: ModelHandle,
        task: str,
        reference: Reference | None,
        device: torch.device,
        progress: ProgressCallback,
    ) -> Outcome:
        """One row per window, with the columns of `frame` and quantbench.tasks.evaluate.Evaluated, and all positions.

        Raises ConfigError if windows are longer than the model takes, ModelError naming task and window if a result is
        not finite.
        """
        self.check_length(max_length(handle.model.config), task)
        names = [f"task {task}, window {i} (at token {offset})" for i, offset in enumerate(self.offsets)]
        found = evaluate(handle, self.tokens, names, reference, device, progress)
        items = pd.concat([self.frame(), found.items], axis=1)
        ids = items["item"].tolist()
        positions = found.positions.rename(columns={"window": "item"})
        positions["item"] = pd.Categorical.from_codes(positions["item"].to_numpy(np.int64), pd.Index(ids))
        return Outcome(
            items,
            {"documents.csv": self.listing} if self.listing else {},
            self._given(found.items),
            estimates(positions, ids),
            positions,
        )

    def _given(self, items: pd.DataFrame) -> tuple[str, ...]:
        """The metrics that can be had: no relative ones without a reference, no KL of confident ones if none is."""
        if "kl" not in items:
            return OWN
        none = not items["n_confident"].any()
        return tuple(name for name in self.metrics if not (none and name == BUCKETS[0]))

    def frame(self) -> pd.DataFrame:
        """Columns item, document, cluster, n_tokens, n_bytes; one row per window."""
        return pd.DataFrame(
            {
                "item": [str(offset) for offset in self.offsets],
                "document": [str(number) for number in self.document_ids],
                "cluster": self.clusters,
                "n_tokens": self.tokens.shape[1] - 1,
                "n_bytes": self.n_bytes,
            }
        )
