"""What of a decoder-only model its cost depends on: the sizes of its operators, without a weight."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A matrix [outputs, inputs].

    role    its standard name: q_proj, o_proj, gate_proj, experts.up_proj, lm_head, ...
    split   what tensor parallelism cuts: "outputs", "inputs", or "none"
    copies  how many there are of it: experts
    """

    role: str
    inputs: int
    outputs: int
    split: str = "none"
    copies: int = 1

    @property
    def size(self) -> int:
        """Weights in all copies."""
        return self.inputs * self.outputs * self.copies


@dataclass(frozen=True, kw_only=True)
class GroupedAttention:
    """Attention of `heads` queries over `kv_heads` keys and values of `width` channels each.

    window  newest positions that a query sees, its own among them; None: all
    """

    hidden: int
    heads: int
    kv_heads: int
    width: int
    window: int | None = None

    def linears(self) -> Iterator[Linear]:
        """Its projections."""
        for role, heads in (("q_proj", self.heads), ("k_proj", self.kv_heads), ("v_proj", self.kv_heads)):
            yield Linear(role=role, inputs=self.hidden, outputs=heads * self.width, split="outputs")
        yield Linear(role="o_proj", inputs=self.heads * self.width, outputs=self.hidden, split="inputs")

    @property
    def cached(self) -> int:
        """Elements of a token in the cache."""
        return 2 * self.kv_heads * self.width


@dataclass(frozen=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): the cache holds a latent and one rotary key.

    query_rank  None: queries are projected in one step
    latent      kv_lora_rank;  plain, rotary: qk_nope_head_dim, qk_rope_head_dim;  value: v_head_dim
    """

    hidden: int
    heads: int
    query_rank: int | None
    latent: int
    plain: int
    rotary: int
    value: int
    window: None = None

    def linears(self) -> Iterator[Linear]:
        """Its projections; down-projections are not split, they are small."""
        queries = self.heads * (self.plain + self.rotary)
        if self.query_rank is None:
            yield Linear(role="q_proj", inputs=self.hidden, outputs=queries, split="outputs")
        else:
            yield Linear(role="q_a_proj", inputs=self.hidden, outputs=self.query_rank)
            yield Linear(role="q_b_proj", inputs=self.query_rank, outputs=queries, split="outputs")
        yield Linear(role="kv_a_proj", inputs=self.hidden, outputs=self.cached)
        up = self.heads * (self.plain + self.value)
        yield Linear(role="kv_b_proj", inputs=self.latent, outputs=up, split="outputs")
        yield Linear(role="o_proj", inputs=self.heads * self.value, outputs=self.hidden, split="inputs")

    @property
    def cached(self) -> int:
        """Elements of a token in the cache."""
        return self.latent + self.rotary


@dataclass(frozen=True, kw_only=True)
class Mlp:
    """A feed-forward layer, or as many as there are experts.

    gated      act(gate) x up, as in SwiGLU; false: act(up)
    experts    how many of this width; chosen: how many a token is routed to. 1 and 1: dense
    prefix     of its roles: "", "experts." or "shared_experts."
    """

    hidden: int
    width: int
    gated: bool
    experts: int = 1
    chosen: int = 1
    prefix: str = ""

    def linears(self) -> Iterator[Linear]:
        """Its matrices."""
        for role in ("gate_proj", "up_proj") if self.gated else ("up_proj",):
            yield self._linear(role, self.hidden, self.width, "outputs")
        yield self._linear("down_proj", self.width, self.hidden, "inputs")

    def _linear(self, role: str, inputs: int, outputs: int, split: str) -> Linear:
        return Linear(role=self.prefix + role, inputs=inputs, outputs=outputs, split=split, copies=self.experts)

    def touched(self, tokens: float) -> float:
        """Experts that some of the tokens are routed to, expected where routing is uniform and independent.

        E (1 - (1 - k/E)^T) for k of E experts and T tokens.
        """
        return self.experts * (1 - math.pow(1 - self.chosen / self.experts, tokens))


@dataclass(frozen=True, kw_only=True)
class Block:
    """One decoder block: attention, and MLPs whose outputs are added (routed and shared experts)."""

    attention: GroupedAttention | LatentAttention
    mlps: tuple[Mlp, ...]

    def linears(self) -> Iterator[Linear]:
        """All of its matrices; a router's among them."""
        yield from self.attention.linears()
        for mlp in self.mlps:
            if mlp.experts > 1:
                yield Linear(role="router", inputs=mlp.hidden, outputs=mlp.experts)
            yield from mlp.linears()


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder-only model.

    tied             the head has the embeddings' weights
    embedding_width  of the embeddings and the head; where it is not `hidden`, two projections lie between
    positions        rows of learned position embeddings
    max_length       most positions; None: no limit is known
    """

    name: str
    hidden: int
    vocabulary: int
    blocks: tuple[Block, ...]
    tied: bool
    embedding_width: int
    positions: int = 0
    max_length: int | None = None

    @property
    def head(self) -> Linear:
        """The head."""
        return Linear(role="lm_head", inputs=self.embedding_width, outputs=self.vocabulary, split="outputs")

    def outside(self) -> Iterator[Linear]:
        """Projections between embeddings of another width and the blocks."""
        if self.embedding_width != self.hidden:
            yield Linear(role="project_in", inputs=self.embedding_width, outputs=self.hidden)
            yield Linear(role="project_out", inputs=self.hidden, outputs=self.embedding_width)

    def linears(self) -> Iterator[tuple[int | None, Linear]]:
        """Every matrix with the number of its block, None for those outside; the head is among them, tied or not."""
        for index, block in enumerate(self.blocks):
            yield from ((index, linear) for linear in block.linears())
        yield from ((None, linear) for linear in (*self.outside(), self.head))

    @property
    def cached_per_token(self) -> int:
        """Elements of a token in the caches of all blocks, windows aside."""
        return sum(block.attention.cached for block in self.blocks)

    @property
    def parameters(self) -> int:
        """Weights of matrices, embeddings and norms; biases are left out."""
        matrices = sum(linear.size for _, linear in self.linears() if not (linear.role == "lm_head" and self.tied))
        embeddings = self.vocabulary * self.embedding_width + self.positions * self.hidden
        return matrices + embeddings + (2 * len(self.blocks) + 1) * self.hidden
