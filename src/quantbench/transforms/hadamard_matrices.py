"""Hadamard matrices: H [n, n] with entries +-1 and H H^T = n I, built from finite fields and from published sequences.

Orders     1, 2 and multiples of 4; those that are built here need not be all that are known.
Sylvester  order 2 n:      [[H, H], [H, -H]]
Paley I    order q + 1:    I + [[0, 1], [-1, K]],  q = 3 mod 4 a prime power        (Paley 1933,
Paley II   order 2 q + 2:  C x [[1, 1], [1, -1]] + I x [[1, -1], [-1, -1]],           doi 10.1002/sapm1933121311)
                           C = [[0, 1], [1, K]],  q = 1 mod 4 a prime power
             K [q, q]  chi(a - b) for a, b in GF(q);  chi is 1 for squares, -1 for other elements, 0 for 0
Goethals-Seidel  order 4 m, from four sequences a, b, c, d of m signs whose periodic autocorrelations add up to 0 for
           every shift but 0: with A, .., D the circulant matrices of these first rows, R the exchange matrix,
           [[A, BR, CR, DR], [-BR, A, D^T R, -C^T R], [-CR, -D^T R, A, B^T R], [-DR, C^T R, -B^T R, A]]
             (Goethals, Seidel: "A skew Hadamard matrix of order 36", 1970). Two sources of sequences:
           Williamson's are symmetric.  m = 23, 29, 43 as in Hall: "Combinatorial Theory" (1983), 39 as in London:
             "Constructing New Turyn Type Sequences, T-Sequences and Hadamard Matrices" (2013)
           Turyn-type sequences X, Y, Z [l], W [l - 1]: N_X + N_Y + 2 N_Z + 2 N_W = 0 for every shift but 0, N the
             aperiodic autocorrelation. They give m = 3 l - 1: signed sums of Z, W, (X + Y) / 2, (X - Y) / 2 side by
             side (Kharaghani, Tayfeh-Rezaie: "A Hadamard matrix of order 428", 2005, doi 10.1002/jcd.20043; the
             sequences also in Best, Djokovic, Kharaghani, Ramp 2013, arXiv 1206.4107)
"""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

Signs = NDArray[np.int8]

_WILLIAMSON = {
    23: ("++---+---+-+", "+-++-++--+++", "+++---++-+-+", "+++-+++-+---"),
    29: ("+++---++--+-+--", "+-+---++--+-+++", "++++-++-+---+++", "++--+--+-+++-++"),
    39: ("+++--+-+-----+--++--", "+++--++-+---+-+--+--", "++++---+--++----+-+-", "+---++-+-+-----+++-+"),
    43: ("++---++++-+--+--++----", "+++-+-++--+-+-++++-+--", "++-++++++----+-+--++-+", "+---++--++++-+-+++-++-"),
}
"""The first half of each symmetric sequence, the middle included: a_0 .. a_(m - 1) / 2; a_(m - i) = a_i."""

_TURYN_TYPE = {
    47: "0000778e52de5561",
    59: "000038e2739c7a0b6951",
    65: "00000f702c71a9ad565961",
    83: "0000067cde3e50639ab46135aa51",
    89: "000000f70b106f9d427a25e9a96951",
    107: "060989975b685d8fc80750b21c0212eceb26",
}
"""By m. The bits of the i-th digit, from the highest, are the i-th signs of X, Y, Z, W (0 is +); the last has no W."""


@cache
def hadamard_matrix(order: int) -> Signs:
    """H int8 [order, order]: do not write into it. Raises ValueError for an order that none of the above gives."""
    odd = order // (order & -order) if order > 0 else 0
    if odd == 1:
        H = np.ones((1, 1), np.int8)
        while len(H) < order:
            H = np.block([[H, H], [H, -H]])
        return H
    if order % 4 == 0 and (field := prime_power(order - 1)) is not None:
        return _paley_1(*field)
    if order % 8 == 4 and (field := prime_power(order // 2 - 1)) is not None:
        return _paley_2(*field)
    if order == 4 * odd and odd in _WILLIAMSON:
        return _goethals_seidel([_signs(half + half[:0:-1]) for half in _WILLIAMSON[odd]])
    if order == 4 * odd and odd in _TURYN_TYPE:
        return _goethals_seidel(_from_turyn_type(_TURYN_TYPE[odd]))
    if order % 8 == 0 and odd > 0:
        half = hadamard_matrix(order // 2)
        return np.block([[half, half], [half, -half]])
    raise ValueError(f"no construction of a Hadamard matrix of order {order} is known here")


@cache
def factors(size: int) -> tuple[int, int, int]:
    """(p, h, m) with size = p h m: Hadamard matrices of orders p, a power of two, and h are known; m is what is left.

    m = 1 wherever a Hadamard matrix of the size is known here. h is the smallest that will do; 1 if p does.
    """
    p = size & -size
    odd = size // p
    if odd > 1:
        for h in (4 * odd << k for k in range(p.bit_length() - 3 + 1)):
            if _is_known(h):
                return size // h, h, 1
    return p, 1, odd


def _is_known(order: int) -> bool:
    """Whether one of the constructions but Sylvester's gives this multiple of 4."""
    second = order % 8 == 4 and prime_power(order // 2 - 1) is not None
    return second or prime_power(order - 1) is not None or order / 4 in {*_WILLIAMSON, *_TURYN_TYPE}


def prime_power(q: int) -> tuple[int, int] | None:
    """(p, e) with q = p^e, p a prime; None if q is no such number, or p is 2."""
    if q < 3 or q % 2 == 0:
        return None
    p = next((d for d in range(3, math.isqrt(q) + 1, 2) if q % d == 0), q)
    e = 1
    while p ** (e + 1) <= q:
        e += 1
    return (p, e) if p**e == q else None


def _paley_1(p: int, e: int) -> Signs:
    K = _characters(p, e)
    one = np.ones((1, len(K)), np.int8)
    S: Signs = np.block([[np.zeros((1, 1), np.int8), one], [-one.T, K]])
    return S + np.eye(len(S), dtype=np.int8)


def _paley_2(p: int, e: int) -> Signs:
    K = _characters(p, e)
    one = np.ones((1, len(K)), np.int8)
    C: Signs = np.block([[np.zeros((1, 1), np.int8), one], [one.T, K]])
    left, right = np.array([[1, 1], [1, -1]], np.int8), np.array([[1, -1], [-1, -1]], np.int8)
    return np.kron(C, left) + np.kron(np.eye(len(C), dtype=np.int8), right)


def _characters(p: int, e: int) -> Signs:
    """K [q, q]. An element of GF(p^e) is a polynomial in x, and its index has the coefficients as digits, base p."""
    chi, places = _character(p, e), p ** np.arange(e)
    digits = np.arange(p**e)[:, None] // places % p
    found: Signs = chi[((digits[:, None] - digits[None]) % p) @ places]
    return found


def _character(p: int, e: int) -> Signs:
    """chi [q]. By the first polynomial for x^e that makes all elements but 0 powers of x: even ones are squares."""
    for rest in itertools.product(range(p), repeat=e):  # x^e = sum_i rest_i x^i
        chi, element = np.zeros(p**e, np.int8), [1] + [0] * (e - 1)
        for power in range(p**e - 1):
            index = sum(digit * p**i for i, digit in enumerate(element))
            if index == 0 or chi[index]:
                break
            chi[index] = 1 - 2 * (power % 2)
            top, element = element[-1], [0, *element[:-1]]
            element = [(digit + top * own) % p for digit, own in zip(element, rest, strict=True)]
        else:
            return chi
    raise AssertionError(f"every finite field has a primitive element, GF({p}^{e}) too")


def _goethals_seidel(rows: list[Signs]) -> Signs:
    A, *others = (np.stack([np.roll(row, i) for i in range(len(row))]) for row in rows)
    B, C, D = (M[:, ::-1] for M in others)  # B R, C R, D R
    Bt, Ct, Dt = (M.T[:, ::-1] for M in others)  # B^T R, ..
    return np.block([[A, B, C, D], [-B, A, Dt, -Ct], [-C, -Dt, A, Bt], [-D, Ct, -Bt, A]])


def _from_turyn_type(digits: str) -> list[Signs]:
    """Four sequences of 3 l - 1 signs: at every place one of T_1 .. T_4 is not 0; they are added with signs."""
    bits = [f"{int(digit, 16):04b}" for digit in digits[:-1]] + [f"{int(digits[-1], 16):03b}"]
    X, Y, Z = (_signs("".join("+-"[int(b[i])] for b in bits)) for i in range(3))
    W = _signs("".join("+-"[int(b[3])] for b in bits[:-1]))
    both, length = np.zeros_like(X), len(X)
    T = np.stack(
        [
            np.concatenate([Z, both[:-1], both]),
            np.concatenate([both, W, both]),
            np.concatenate([both, both[:-1], (X + Y) // 2]),
            np.concatenate([both, both[:-1], (X - Y) // 2]),
        ]
    )
    assert T.shape == (4, 3 * length - 1)
    return list(hadamard_matrix(4) @ T)


def _signs(text: str) -> Signs:
    """+-1 for + and -."""
    return np.array([1 if sign == "+" else -1 for sign in text], np.int8)
