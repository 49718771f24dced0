"""Rotating a model: what `quantbench.transforms.rotation` describes, done to a model without knowing its name.

Readers of the residual stream are the groups of weights whose input a normalization of the stream's width wrote;
writers are the layers whose input none wrote and whose output has the stream's width. A few tokens run through the
model as it was and as it is rotated: every block's output, and the logits, must be the same up to rounding errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from quantbench.core.errors import ModelError
from quantbench.models.handle import ModelHandle, Removable
from quantbench.models.structure import (
    GroupFinder,
    InputGroup,
    WeightSlot,
    embedding_slot,
    find_blocks,
    head_slot,
    norm_modules,
)
from quantbench.pipeline.capture import capture, run_block, run_head
from quantbench.pipeline.fold import check_unchanged, input_of, norm_producer, replace_parameter
from quantbench.pipeline.input_ops import RotateInput
from quantbench.pipeline.runtime import RuntimeOp, install
from quantbench.transforms.hadamard import Orthogonal
from quantbench.transforms.rotation import Rotation

_PROBE_TOKENS = 32

Run = Callable[[], object]


@torch.no_grad()
def rotate_model(handle: ModelHandle, rotation: Rotation, device: torch.device) -> list[RuntimeOp]:
    """Rotate the full-precision model in `handle`, one block at a time on `device`; the operations it performs since.

    They are installed, until the handle is restored. Raises ModelError if the model's structure does not allow it.
    """
    model = handle.model
    prefix, blocks = find_blocks(model)
    modules = dict(model.named_modules())
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.linspace(0, vocabulary - 1, _PROBE_TOKENS).long()[None]
    captured = capture(model, blocks, tokens)
    states = rotated = captured.hidden[0]
    stream = None
    if rotation.residual:
        stream = rotation.matrix(states.shape[-1], "residual")
        _rotate_embeddings(model, stream)
        rotated = capture(model, blocks, tokens).hidden[0]
        try:
            _same(stream.apply(states), rotated, "input of the first block")
        except ModelError as error:
            reason = "the input of the first block is no multiple of the token embeddings (learned positions are added)"
            raise _refused(type(model).__name__, reason, _NO_STREAM) from error
    ops: list[RuntimeOp] = []
    for index, block in enumerate(blocks):
        name, call = f"{prefix}.{index}", captured.calls[index][0]
        block.to(device)
        step = _Block(name, block, states, lambda b=block, s=states, c=call: run_block(b, s, c), rotation)  # type: ignore[misc]
        found = step.rotate(stream, _heads(model))
        handle.keep_hooks(install(modules, found))
        states, rotated = step.output, run_block(block, rotated, call)
        _same(states if stream is None else stream.apply(states), rotated, f"{name}'s output")
        handle.bring_home(block)
        ops += found
    as_tuple = captured.returns_tuple[type(blocks[-1])]
    before = run_head(model, blocks, states, as_tuple)
    if stream is not None:
        _rotate_head(model, stream, lambda: run_head(model, blocks, states, as_tuple))
    _same(before, run_head(model, blocks, rotated, as_tuple), "the logits")
    return ops


def _same(before: Tensor, after: Tensor, what: str) -> None:
    check_unchanged(before, after, f"quantizer.rotation ({what})")


def _refused(name: str, reason: str, remedy: str) -> ModelError:
    return ModelError(f"quantizer.rotation: {name}: {reason}. {remedy}")


_NO_STREAM = "Set quantizer.rotation.residual=false, or choose a recipe without rotation"
_NO_HEADS = "Set quantizer.rotation.value=false and quantizer.rotation.heads=false, or choose a recipe without rotation"


def _heads(model: PreTrainedModel) -> tuple[int, int, int]:
    """(attention heads, key-value heads, width of a head), as the configuration says."""
    config = model.config.get_text_config()
    heads: int = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    return heads, shared, getattr(config, "head_dim", None) or config.hidden_size // heads


@contextmanager
def _hooks(handles: list[Removable]) -> Iterator[None]:
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


# Rewrites of one layer


def _rotate_inputs(slot: WeightSlot, matrix: Orthogonal, stride: int = 1) -> None:
    """W R in place of W, for an input that is x R."""
    slot.set(matrix.apply(slot.get(), stride))


def _rotate_outputs(slot: WeightSlot, matrix: Orthogonal, rows: slice = slice(None)) -> None:
    """R^T W and bias R in place of W and bias, on some of the output rows, head by head if R is smaller."""
    weight = slot.get().clone()
    weight[rows] = matrix.apply(weight[rows].t().contiguous()).t()
    slot.set(weight)
    if slot.bias is not None:
        bias = slot.bias.detach().float().clone()
        bias[rows] = matrix.apply(bias[rows])
        replace_parameter(slot.module, "bias", bias)


def _fold_gain(group: InputGroup, stream: Orthogonal, name: str) -> None:
    """Move the gain of a group's normalization into its weights, and see that what is left commutes with rotation."""
    producer = norm_producer(group)
    if producer is None:
        raise _refused(name, "the gain of a normalization has no known form", _NO_STREAM)
    gain = producer.release()
    for slot in group.slots:
        slot.set(slot.get() * gain)
    probe = torch.linspace(-1, 2, len(gain), device=gain.device).to(slot.dtype)[None, None]
    straight, turned = stream.apply(producer.module(probe)), producer.module(stream.apply(probe))
    if not torch.allclose(straight, turned, atol=1e-1 if slot.dtype != torch.float32 else 1e-3):
        kind = type(producer.module).__name__
        reason = f"{kind} is no root-mean-square normalization (it subtracts the mean or adds a bias)"
        raise _refused(name, f"{reason}, so it does not commute with a rotation of the residual stream", _NO_STREAM)


# The parts of a model


def _rotate_embeddings(model: PreTrainedModel, stream: Orthogonal) -> None:
    slot = embedding_slot(model)
    if slot.shape[1] != stream.size:
        reason = f"embeddings {slot.shape[1]} wide are projected to the {stream.size} channels of the residual stream"
        raise _refused(slot.name, reason, _NO_STREAM)
    _rotate_inputs(slot, stream)


def _rotate_head(model: PreTrainedModel, stream: Orthogonal, run: Run) -> None:
    """Fold the last normalization into the head, and rotate it. `run` runs them."""
    head = head_slot(model)
    written: list[tuple[nn.Module, Tensor]] = []
    read: list[Tensor] = []
    hooks: list[Removable] = [
        norm.register_forward_hook(lambda module, _args, output: written.append((module, output)))
        for norm in norm_modules(model).values()
    ]
    hooks.append(head.module.register_forward_pre_hook(lambda _module, args: read.append(args[0])))
    with _hooks(hooks):
        run()
    norm = next((module for module, output in written if output.data_ptr() == read[0].data_ptr()), None)
    if norm is None:
        raise _refused(head.name, "the head reads no output of a normalization", _NO_STREAM)
    _fold_gain(InputGroup((head,), norm), stream, head.name)
    _rotate_inputs(head, stream)


@dataclass(frozen=True)
class _Value:
    """Some output `rows` of a layer are the values that the attention's output projection reads, mixed over tokens."""

    slot: WeightSlot
    rows: slice
    projection: InputGroup


class _Block:
    """One block [.., d], what it reads, and `run`, which runs it on that. `output` is what it wrote before."""

    def __init__(self, name: str, block: nn.Module, states: Tensor, run: Run, rotation: Rotation) -> None:
        self.name, self.block, self.run, self.rotation = name, block, run, rotation
        for parameter_name, parameter in block.named_parameters():
            if parameter.dim() > 2:
                reason = "weights in a 3-D parameter (experts) are not rotated"
                raise _refused(f"{name}.{parameter_name}", reason, "Choose a recipe without rotation")
        with GroupFinder(name, block) as finder:
            output = run()
        assert isinstance(output, Tensor)
        self.output = output
        self.groups = finder.groups()
        width = states.shape[-1]
        self.readers = [g for g in self.groups if g.norm is not None and g.in_features == width]
        self.writing = [g for g in self.groups if g.norm is None and any(s.shape[0] == width for s in g.slots)]

    def rotate(self, stream: Orthogonal | None, heads: tuple[int, int, int]) -> list[RuntimeOp]:
        """Rotate the block's weights; the operations its layers perform since."""
        n_heads, shared, width = heads
        value = self._find_value(n_heads, shared, width)
        down = self._down(value)
        if stream is not None:
            self._rotate_stream(stream)
        if value is None and (self.rotation.value or self.rotation.heads):
            reason = f"no layer gives the values of {shared} heads, {width} channels each, in the order of the output"
            raise _refused(self.name, f"{reason} projection's input", _NO_HEADS)
        ops: list[RuntimeOp] = []
        if value is not None and self.rotation.value:
            matrix = self.rotation.matrix(width, f"{self.name} value")
            _rotate_outputs(value.slot, matrix, value.rows)
            for slot in value.projection.slots:
                _rotate_inputs(slot, matrix)
        if value is not None and self.rotation.heads:
            size, stride = (n_heads, width) if self.rotation.value else (n_heads * width, 1)
            ops += self._online(value.projection, size, stride)
        if self.rotation.down:
            ops += self._online(down, down.in_features, 1)
        return ops

    def _online(self, group: InputGroup, size: int, stride: int) -> list[RuntimeOp]:
        """Rotate what a group reads as it runs; its weights absorb the inverse."""
        seed = self.rotation.text(group.slots[0].name)
        for slot in group.slots:
            _rotate_inputs(slot, Orthogonal(size, seed), stride)
        return [RotateInput(module=slot.name, size=size, stride=stride, seed=seed) for slot in group.slots]

    def _rotate_stream(self, stream: Orthogonal) -> None:
        writers = [slot for group in self.writing for slot in group.slots]
        if not self.readers or not writers:
            reason = "no layer reads a normalization of the residual stream, or none writes to the stream"
            raise _refused(self.name, reason, _NO_STREAM)
        for group in self.readers:
            _fold_gain(group, stream, self.name)
        self._refuse_normalized(writers)
        for group in self.readers:
            for slot in group.slots:
                _rotate_inputs(slot, stream)
        for slot in writers:
            _rotate_outputs(slot, stream)

    def _refuse_normalized(self, writers: list[WeightSlot]) -> None:
        """Raise ModelError if a normalization stands between a writer and the stream: its gain cannot be folded."""
        written: list[Tensor] = []
        read: list[tuple[str, Tensor]] = []

        def noting(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            return lambda _module, args: read.append((name, args[0]))

        hooks: list[Removable] = [
            slot.module.register_forward_hook(lambda _module, _args, output: written.append(output)) for slot in writers
        ]
        hooks += [norm.register_forward_pre_hook(noting(name)) for name, norm in norm_modules(self.block).items()]
        with _hooks(hooks):
            self.run()
        addresses = {output.data_ptr() for output in written}
        found = [name for name, given in read if given.data_ptr() in addresses]
        if found:
            reason = f"{found[0]} writes into the residual stream, and the gain of a normalization there has no reader"
            raise _refused(self.name, f"{reason} it could be folded into", _NO_STREAM)

    def _find_value(self, heads: int, shared: int, width: int) -> _Value | None:
        """Values and the layer that reads them, found by trying: rotated heads must come out as rotated heads."""
        matrix, n = Orthogonal(width, "probe"), shared * width

        def rotate_values(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
            return torch.cat([output[..., :-n], matrix.apply(output[..., -n:])], dim=-1)

        for projection in (g for g in self.groups if g.norm is None and g.in_features == heads * width):
            plain = input_of(projection, self.run)
            tolerance = (1e-2 if plain.dtype != torch.float32 else 1e-4) * float(plain.abs().amax())
            for slot in (s for g in self.groups for s in g.slots if s.shape[0] >= n):
                with _hooks([slot.module.register_forward_hook(rotate_values)]):
                    turned = input_of(projection, self.run)
                if torch.allclose(turned, matrix.apply(plain), rtol=0, atol=tolerance):
                    return _Value(slot, slice(slot.shape[0] - n, None), projection)
        return None

    def _down(self, value: _Value | None) -> InputGroup:
        """The last group that writes to the stream and does not read the attention's output."""
        found = [group for group in self.writing if value is None or group is not value.projection]
        if not found and self.rotation.down:
            remedy = "Set quantizer.rotation.down=false, or choose a recipe without rotation"
            raise _refused(self.name, "no layer of an MLP writes to the residual stream", remedy)
        return found[-1] if found else self.groups[-1]
