"""The operators of a decoder: operations and bytes of each, on each chip.

Source  Yuan et al.: "LLM Inference Unveiled: Survey and Roofline Model Insights" (arXiv 2402.16363), Section 2
Symbols B sequences, n tokens of each that are computed (decode: 1, prefill: all), S tokens that each has in all
        h query heads, h_kv key and value heads, d channels of a head, P pairs of a query and a key that it sees

matrix [o, i]   2 i o B n operations; reads its weights and B n i inputs, writes B n o outputs
attention       fused: 4 B h d P operations, and 5 B h P of the softmax; reads queries and cache, writes outputs. The
                cache is read once for each 128 queries of a sequence (rows of a block of FlashAttention-2, 2307.08691)
                eager: scores of all n S pairs are written and read in between
norm            7 operations an element, an addition 1, a gated activation 2: each reads and writes its elements
experts         the expected number that some token is routed to is read (Mlp.touched)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quantbench.roofline.load import Load
from quantbench.roofline.precision import Precision
from quantbench.roofline.shape import GroupedAttention, LatentAttention, Linear, Mlp, Shape

ROWS = 128
"""Queries of a sequence that read the cache together."""


@dataclass(frozen=True, kw_only=True)
class Operator:
    """What an operator of one chip does for a phase.

    name         its role, or qk, softmax, sv, attention, norms, additions, activation, all_reduce
    block        None: outside of the blocks
    flops        operations
    weight_bytes, cache_bytes, activation_bytes  read and written
    sent_bytes   to other chips
    arithmetic   which of the machine's rates it computes at
    """

    name: str
    block: int | None
    flops: float = 0.0
    weight_bytes: float = 0.0
    cache_bytes: float = 0.0
    activation_bytes: float = 0.0
    sent_bytes: float = 0.0
    arithmetic: str = "fp16"

    @property
    def bytes(self) -> float:
        """All that goes through the chip's memory."""
        return self.weight_bytes + self.cache_bytes + self.activation_bytes

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes if self.bytes else 0.0


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Prefill or decode of a model: makes its operators.

    n  tokens of each sequence that are computed;  length  that each has then, these included
    """

    model: Shape
    precision: Precision
    load: Load
    n: int
    length: int

    @property
    def tokens(self) -> int:
        """Tokens computed, of all sequences."""
        return self.load.batch * self.n

    def operators(self) -> Iterator[Operator]:
        """All of them, block by block."""
        for index, block in enumerate(self.model.blocks):
            yield from self._linears(index, block.attention.linears())
            if isinstance(block.attention, LatentAttention):
                yield from self._latent(index, block.attention)
            else:
                yield from self._grouped(index, block.attention)
            for mlp in block.mlps:
                if mlp.experts > 1:
                    router = Linear(role="router", inputs=mlp.hidden, outputs=mlp.experts)
                    yield self.matrix(index, router, self.tokens)
                yield from self._mlp(index, mlp)
            yield self._elementwise("norms", index, 2 * self.model.hidden, 7, 2)
            yield self._elementwise("additions", index, 2 * self.model.hidden, 1, 2)
            yield from self._all_reduce(index)
        yield from self._linears(None, self.model.outside())
        yield self._elementwise("norms", None, self.model.hidden, 7, 2)
        yield self.head()

    def head(self) -> Operator:
        """The head, of the last token of each sequence."""
        return self.matrix(None, self.model.head, self.load.batch)

    def matrix(
        self, block: int | None, linear: Linear, tokens: float, read: float = 1.0, routed: float = 1.0
    ) -> Operator:
        """A matrix; read: how many of its copies are; routed: copies that each token goes through."""
        chips = self.load.tensor_parallel
        inputs = linear.inputs / (chips if linear.split == "inputs" else 1)
        outputs = linear.outputs / (chips if linear.split == "outputs" else 1)
        precision, passed = self.precision, tokens * routed
        quantized = precision.quantizes(block, linear.role)
        cached = linear.role in {"k_proj", "v_proj", "kv_a_proj"}
        in_bits = precision.inputs if quantized else precision.others
        out_bits = precision.kv if cached else precision.others
        return Operator(
            name=linear.role,
            block=block,
            flops=2 * inputs * outputs * passed,
            weight_bytes=inputs * outputs * read * precision.of(block, linear.role) / 8,
            activation_bytes=passed * (inputs * in_bits + outputs * out_bits) / 8,
            arithmetic=precision.arithmetic if quantized else precision.other_arithmetic,
        )

    def _linears(self, block: int | None, linears: Iterator[Linear]) -> Iterator[Operator]:
        yield from (self.matrix(block, linear, self.tokens) for linear in linears)

    # Attention

    def _grouped(self, block: int, own: GroupedAttention) -> Iterator[Operator]:
        heads, kv_heads = own.heads / self.load.tensor_parallel, self.load.kv_heads(own)
        yield from self._attention(
            block, heads, own.width, own.width, kv_heads * own.width, kv_heads * own.width, own.window
        )

    def _latent(self, block: int, own: LatentAttention) -> Iterator[Operator]:
        """Decode: heads attend to the cached latents, the up-projection absorbed; prefill: to keys and values of them.

        The latent cache has one head, which every chip holds.
        """
        heads = own.heads / self.load.tensor_parallel
        if self.n == 1:
            yield from self._attention(block, heads, own.cached, own.latent, own.cached, 0, None)
        else:
            width = own.plain + own.rotary
            yield from self._attention(block, heads, width, own.value, heads * width, heads * own.value, None)

    def _attention(
        self, block: int, heads: float, key: int, value: int, keys: float, values: float, window: int | None
    ) -> Iterator[Operator]:
        """key, value: channels of a head; keys, values: channels of a token that are read, of all heads."""
        B, n, S, bits = self.load.batch, self.n, self.length, self.precision.others
        arithmetic = self.precision.other_arithmetic
        queries, outputs = B * n * heads * key * bits / 8, B * n * heads * value * bits / 8
        if self.load.attention == "fused":
            pairs = visible_pairs(n, S, window)
            tokens = -(-n // ROWS) * pairs / n
            yield Operator(
                name="attention",
                block=block,
                flops=B * heads * pairs * (2 * (key + value) + 5),
                cache_bytes=B * (keys + values) * self.precision.cache_bits(tokens, S) / 8,
                activation_bytes=queries + outputs,
                arithmetic=arithmetic,
            )
            return
        scores = B * heads * n * S
        cached = B * self.precision.cache_bits(S, S) / 8
        for name, width, channels, moved in (
            ("qk", key, keys, queries + scores * bits / 8),
            ("softmax", 0, 0, 2 * scores * bits / 8),
            ("sv", value, values or keys, scores * bits / 8 + outputs),
        ):
            yield Operator(
                name=name,
                block=block,
                flops=scores * (2 * width or 5),
                cache_bytes=cached * channels,
                activation_bytes=moved,
                arithmetic=arithmetic,
            )

    # The rest of a block

    def _mlp(self, block: int, mlp: Mlp) -> Iterator[Operator]:
        for linear in mlp.linears():
            yield self.matrix(block, linear, self.tokens, mlp.touched(self.tokens), mlp.chosen)
        width = mlp.width * mlp.chosen / self.load.tensor_parallel
        yield self._elementwise(f"{mlp.prefix}activation", block, width, 2, 3 if mlp.gated else 2)

    def _elementwise(self, name: str, block: int | None, width: float, flops: float, moved: float) -> Operator:
        """`width` elements a token: operations on, and movements of, each."""
        elements = self.tokens * width
        return Operator(
            name=name,
            block=block,
            flops=flops * elements,
            activation_bytes=moved * elements * self.precision.others / 8,
            arithmetic=self.precision.other_arithmetic,
        )

    def _all_reduce(self, block: int) -> Iterator[Operator]:
        """Behind attention and MLP: a ring sends 2 (c - 1) / c of the hidden states from each of c chips."""
        chips = self.load.tensor_parallel
        if chips > 1:
            sent = 2 * (chips - 1) / chips * self.tokens * self.model.hidden * self.precision.others / 8
            yield Operator(name="all_reduce", block=block, sent_bytes=2 * sent)


def visible_pairs(n: int, length: int, window: int | None) -> float:
    """Pairs of the last n tokens of a sequence and the tokens that they see: themselves, and before them a window."""
    first, last = length - n + 1, length
    if window is None or window >= last:
        return n * (first + last) / 2
    growing = max(0, window - first)  # queries that see fewer than `window` tokens
    return growing * (first + window - 1) / 2 + (n - growing) * window
