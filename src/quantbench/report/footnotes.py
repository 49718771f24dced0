"""Footnotes of tables: what went wrong, or gave way, and how much test text was calibrated on."""

from __future__ import annotations

from collections.abc import Sequence

from quantbench.report.columns import ResultRow

FALLBACK = "†"


class Footnotes:
    """Numbers reasons in the order they are met, and remembers where something gave way."""

    def __init__(self) -> None:
        self._reasons: dict[str, int] = {}
        self._fallbacks: dict[str, None] = {}

    def number(self, reason: str) -> str:
        """The mark of a reason: "[1]", the same for the same reason."""
        return f"[{self._reasons.setdefault(reason, len(self._reasons) + 1)}]"

    def mark_fallbacks(self, row: ResultRow) -> str:
        """A dagger if something gave way while the row's run was quantized."""
        if not row["fallbacks"]:
            return ""
        self._fallbacks.setdefault(f"{row['calib']}: {row['fallbacks']}")
        return FALLBACK

    def lines(self, rows: Sequence[ResultRow]) -> list[str]:
        """All footnotes, and the largest overlap of calibration with test text where it was checked."""
        found = [f"[{number}] {reason}" for reason, number in self._reasons.items()]
        found += [f"{FALLBACK} gave way while quantizing: {fallback}" for fallback in self._fallbacks]
        checked = [(row["overlap_13gram"], row) for row in rows if row["overlap_13gram"] is not None]
        if checked:
            share, worst = max(checked, key=lambda pair: pair[0])
            where = f", {worst['calib']} on {worst['distribution']}" if share else ""
            found.append(f"Items sharing a 13-gram with the calibration text: at most {100 * share:.3g} %{where}")
        return found
