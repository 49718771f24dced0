"""What the cells of one process share: the loaded model, tokenizers, test sets, calibration sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from quantbench.calibration.base import CalibSet
from quantbench.calibration.replicates import reordered
from quantbench.checkpoints.recipe import CheckpointRecipe
from quantbench.config.cell import Cell
from quantbench.config.node import ConfigNode
from quantbench.core.cache import cache_dir
from quantbench.core.environment import pick_device
from quantbench.core.errors import ConfigError, DataError, ModelError, QuantbenchError
from quantbench.core.lazy import lazy_module
from quantbench.core.memory import Memory, machine_memory
from quantbench.datasets.overlap import Overlap, overlap
from quantbench.datasets.passages import shared_between
from quantbench.models.handle import ModelHandle
from quantbench.models.loading import ModelSource
from quantbench.models.outline import Outline, outline, position_limit
from quantbench.models.tokenizer import highest_id, known_fingerprint
from quantbench.store.store import Store
from quantbench.tasks.task import TestSet, load_test_set, protocol_id

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from quantbench.checkpoints import read
    from quantbench.models import skeleton
else:
    read = lazy_module("quantbench.checkpoints.read")
    skeleton = lazy_module("quantbench.models.skeleton")


@dataclass(frozen=True)
class Inputs:
    """Everything a cell reads besides the model's weights; calib is None where Cell.calib is."""

    calib: CalibSet | None
    tests: dict[str, TestSet]
    overlaps: dict[str, Overlap]


class Session:
    """Loads each thing once, and keeps one model at a time.

    attempt  name of the command or submission: what failed in it is not tried again in it; "" for none
    """

    def __init__(self, store: Store, attempt: str = "") -> None:
        self.store, self.attempt = store, attempt
        self._tokenizers: dict[str, tuple[PreTrainedTokenizerBase, str]] = {}
        self._limits: dict[str, int | None] = {}
        self._outlines: dict[str, Outline] = {}
        self._skeletons: dict[str, PreTrainedModel] = {}
        self._tests: dict[str, TestSet | QuantbenchError] = {}
        self._calibs: dict[str, CalibSet] = {}
        self._overlaps: dict[tuple[str, str], Overlap] = {}
        self._model: tuple[str, ModelHandle] | None = None
        self.installed: str | None = None
        """run_id of what is in the loaded model now."""

    def device(self, cell: Cell) -> torch.device:
        """The cell's device."""
        return pick_device(cell.settings.device)

    def tokenizer(self, cell: Cell) -> tuple[PreTrainedTokenizerBase, str]:
        """The model's tokenizer and its fingerprint; loads no weights."""
        key = cell.model_part.digest
        if key not in self._tokenizers:
            tokenizer = cell.model.load_tokenizer()
            self._tokenizers[key] = tokenizer, known_fingerprint(tokenizer)
        return self._tokenizers[key]

    def limit(self, cell: Cell) -> int | None:
        """How many positions the model takes."""
        key = cell.model_part.digest
        if key not in self._limits:
            self._limits[key] = position_limit(cell.model)
        return self._limits[key]

    def outline(self, cell: Cell) -> Outline:
        """What the model's configuration says of it."""
        key = cell.model_part.digest
        if key not in self._outlines:
            self._outlines[key] = outline(cell.model)
        return self._outlines[key]

    def skeleton(self, cell: Cell) -> PreTrainedModel:
        """The model without its weights, for what is compared with it."""
        key = cell.model_part.digest
        if key not in self._skeletons:
            self._skeletons[key] = skeleton.skeleton(cell.model)
        return self._skeletons[key]

    def handle(self, cell: Cell) -> ModelHandle:
        """The loaded model. A different one that was loaded before is let go first."""
        key = cell.model_part.digest
        if self._model is None or self._model[0] != key:
            self._model = self.installed = None
            self._model = (key, cell.model.load())
        self._model[1].memory = _memory(cell)
        return self._model[1]

    def inputs(self, cell: Cell) -> Inputs:
        """Test sets and calibration set of a cell, checked for overlap. Raises DataError for what cannot be used."""
        tokenizer, _ = self.tokenizer(cell)
        tests = {name: self.test(cell, name) for name in cell.tasks}
        if cell.calib is None or cell.calib_part is None:
            return Inputs(None, tests, {})
        key = f"{cell.model_part.digest} {cell.calib_part.digest}"
        if key not in self._calibs:
            self._calibs[key] = cell.calib.draw_set(tokenizer)
        calib = self._calibs[key]
        overlaps = {}
        for name, test in tests.items():
            pair = (calib.fingerprint, protocol_id(test))
            if pair not in self._overlaps:
                self._overlaps[pair] = overlap(calib, test.token_rows, test.documents, test.contents)
            _check_overlap(self._overlaps[pair], calib, test, name)
            overlaps[name] = self._overlaps[pair]
        return Inputs(reordered(calib, cell.settings.replicate), tests, overlaps)

    def text_at_hand(self, cell: Cell) -> CalibSet | None:
        """The first calibration set that was drawn for a cell of the same model; None if none was."""
        return next((one for key, one in self._calibs.items() if key.startswith(cell.model_part.digest)), None)

    def test(self, cell: Cell, task: str) -> TestSet:
        """The test set of a task. Raises DataError if its data cannot be had or do not suffice."""
        tokenizer, fingerprint = self.tokenizer(cell)
        key = f"{cell.model_part.digest} {cell.task_parts[task].digest}"
        if key not in self._tests:
            try:
                self._tests[key] = load_test_set(cell.tasks[task], tokenizer, fingerprint)
            except QuantbenchError as error:  # an unreachable set is asked for once, not once a cell
                self._tests[key] = error
        found = self._tests[key]
        if isinstance(found, QuantbenchError):
            raise found
        return found


def _memory(cell: Cell) -> Memory:
    """What there is for a cell's model."""
    given = cell.settings.memory_gib
    size = machine_memory() if given is None else int(given * 2**30)
    return Memory(size, cell.settings.spill_folder or cache_dir() / "spill")


def _check_overlap(found: Overlap, calib: CalibSet, test: TestSet, task: str) -> None:
    """Raise DataError for texts that overlap, with the passage that is in both: it may be boilerplate."""
    try:
        found.check(calib.name, task)
    except DataError as error:
        shared = None if found.shared_items else shared_between(calib.documents, test.documents)
        if shared is None:
            raise
        raise DataError(
            f"{error} Of the test's documents {shared.documents} hold a passage that was calibrated on, too: {shared}. "
            "If that is boilerplate, strip_boilerplate=0.1 of the data set (calib.strip_boilerplate) takes out what "
            "more than a tenth of its documents hold."
        ) from error


def check_inputs(session: Session, cells: Sequence[Cell]) -> None:
    """Load every data set and tokenizer the cells need, and compare the cells with the structure of their models.

    Raises QuantbenchError listing everything that is missing, too short, too long for the model, overlapping, or
    matches no layer, before any expensive work.
    """
    problems: dict[str, None] = {}
    models: dict[ConfigNode[ModelSource], bool] = {}
    checked: set[tuple[object, ...]] = set()
    for cell in cells:
        parts = (cell.model_part, cell.calib_part, cell.recipe_part, *cell.task_parts.values())
        if parts in checked:  # cells of a grid share their parts
            continue
        checked.add(parts)
        if cell.model_part not in models:
            models[cell.model_part] = _noted(problems, partial(session.tokenizer, cell))
        if not models[cell.model_part]:  # a model that cannot be had is asked for once, not once a cell
            continue
        steps: list[Callable[[], object]] = [partial(session.test, cell, task) for task in cell.tasks]
        steps += [partial(step, session, cell) for step in (_check_lengths, _check_layers)]
        steps += [partial(session.inputs, cell), partial(_check_vocabulary, session, cell)]
        for step in steps:
            _noted(problems, step)
    if problems:
        raise QuantbenchError("nothing was run.\n" + "\n".join(f"- {p}" for p in problems))


def _noted(problems: dict[str, None], step: Callable[[], object]) -> bool:
    """Whether a step went well; what was wrong is noted."""
    try:
        step()
    except QuantbenchError as error:
        problems[str(error)] = None
        return False
    return True


def _check_lengths(session: Session, cell: Cell) -> None:
    limit = session.limit(cell)
    for name in cell.tasks:
        session.test(cell, name).check_length(limit, name)
    if cell.calib is not None and limit is not None and cell.calib.length > limit:
        raise ConfigError(
            f"calib.length={cell.calib.length}: the model takes at most {limit} tokens; use {limit} or less"
        )


def _check_vocabulary(session: Session, cell: Cell) -> None:
    """Raise ModelError if a token that is read has no row in the model's embeddings."""
    tokenizer, _ = session.tokenizer(cell)
    if cell.model.trust_remote_code:  # as for the layers
        return
    rows = session.outline(cell).rows
    if highest_id(tokenizer) < rows:  # many models have rows to spare
        return
    inputs = session.inputs(cell)
    read = {name: test.token_rows for name, test in inputs.tests.items()}
    read |= {} if inputs.calib is None else {"calib": list(inputs.calib.tokens)}
    for name, sequences in read.items():
        token = max((int(one.max()) for one in sequences if one.numel()), default=-1)
        if token >= rows:
            raise ModelError(
                f"{name}: token {token} ({tokenizer.convert_ids_to_tokens(token)!r}) has no row in the embeddings of "
                f"model {cell.model.name}, which has {rows}: the tokenizer is another model's, or tokens were added to "
                "it and the model was not resized"
            )


def _check_layers(session: Session, cell: Cell) -> None:
    # Code that a model brings along need not run without weights: then the names are checked when it is quantized.
    if cell.recipe.full_precision or cell.model.trust_remote_code:
        return
    cell.recipe.check_layers(session.outline(cell).quantizable().layers)
    if isinstance(cell.recipe, CheckpointRecipe):
        limit = read.check_checkpoint(cell.recipe, session.skeleton(cell), session.tokenizer(cell)[0].get_vocab())
        for name in cell.tasks:
            session.test(cell, name).check_length(limit, name)
