"""What a model's configuration says of it, without the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantbench.core.errors import ModelError
from quantbench.core.lazy import lazy_module
from quantbench.models.folder import max_length
from quantbench.models.kept import Finding, kept
from quantbench.models.loading import ModelSource

if TYPE_CHECKING:
    from quantbench.models import skeleton
else:
    skeleton = lazy_module("quantbench.models.skeleton")


class Outline(Finding):
    """A causal language model as its configuration describes it.

    limit       most positions it takes, None if it sets no limit
    rows        how many token ids it takes
    width       elements of a token's hidden state
    layers      names of the weights that a recipe quantizes
    parameters  of the decoder blocks
    refusal     why it cannot be quantized, None if it can; then there are neither layers nor parameters
    """

    limit: int | None
    rows: int
    width: int
    layers: tuple[str, ...] = ()
    parameters: int = 0
    refusal: str | None = None

    def quantizable(self) -> Outline:
        """Itself. Raises ModelError for a structure that cannot be quantized."""
        if self.refusal is not None:
            raise ModelError(self.refusal)
        return self


def outline(source: ModelSource) -> Outline:
    """The outline of a model: what was found before, where no code of the model's own says what it is.

    Raises ModelError if its configuration cannot be had, or is of no causal language model.
    """
    if source.trust_remote_code:
        return _look(source)
    return kept(source.definition(), Outline, lambda: _look(source))


def position_limit(source: ModelSource) -> int | None:
    """Most positions a model takes. Of code of the model's own only the configuration runs: the rest may need weights.

    Raises ModelError as `outline` does.
    """
    return max_length(source.config()) if source.trust_remote_code else outline(source).limit


def _look(source: ModelSource) -> Outline:
    config = source.config()
    model = skeleton.skeleton(source)
    limit, rows, width = max_length(config), skeleton.embedding_rows(model), skeleton.hidden_width(model)
    try:
        layers, parameters = tuple(skeleton.layer_names(model)), skeleton.block_parameters(model)
    except ModelError as error:
        return Outline(limit=limit, rows=rows, width=width, refusal=str(error))
    return Outline(limit=limit, rows=rows, width=width, layers=layers, parameters=parameters)
