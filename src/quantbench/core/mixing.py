"""How far what a token becomes depends on the other tokens that are read with it."""

from __future__ import annotations

from enum import IntEnum


class Mixing(IntEnum):
    """What an operation lets act on a token, beyond what the full-precision model does; the higher includes the lower.

    NONE      nothing but the token itself
    EARLIER   tokens before it in its sequence, and how many there are: sequences may lie side by side in a batch, begin
              alike, and be padded behind, but not before
    SEQUENCE  all tokens of its sequence, later ones and padding included: each sequence is computed as it is, alone
    BATCH     all tokens that go through the model at once: the same
    """

    NONE = 0
    EARLIER = 1
    SEQUENCE = 2
    BATCH = 3
