"""Footnotes of tables: what went wrong, or gave way, and how much test text was calibrated on."""

from __future__ import annotations

from quantbench.report.columns import ResultRow

FALLBACK = "†"
CUT = "✂"
OVERLAP = "§"
MARKED_SHARE = 0.01
"""Cells are marked where a larger share of the items has a 13-gram in common with the calibration text."""


class Footnotes:
    """Numbers reasons in the order they are met, and remembers where something gave way."""

    def __init__(self) -> None:
        self._reasons: dict[str, int] = {}
        self._fallbacks: dict[str, None] = {}
        self._cut: dict[str, dict[str, int]] = {}
        self._overlaps: dict[str, float] = {}

    def number(self, reason: str) -> str:
        """The mark of a reason: "[1]", the same for the same reason."""
        return f"[{self._reasons.setdefault(reason, len(self._reasons) + 1)}]"

    def mark_fallbacks(self, row: ResultRow) -> str:
        """A dagger if something gave way while the row's run was quantized."""
        if not row["fallbacks"]:
            return ""
        self._fallbacks.setdefault(f"{row['calib']}: {row['fallbacks']}")
        return FALLBACK

    def mark_cut(self, row: ResultRow) -> str:
        """A pair of scissors if prompts or answers of the row's score were cut: what it measures is less than told."""
        counts = {"prompts": row["cut_prompts"] or 0, "answers": row["cut_answers"] or 0}
        if not any(counts.values()):
            return ""
        most = self._cut.setdefault(row["task"], {})
        for what, count in counts.items():
            if count:
                key = f"{what} of {row['n']}"
                most[key] = max(count, most.get(key, 0))
        return CUT

    def mark_overlap(self, row: ResultRow) -> str:
        """A section sign if more than a hundredth of the items has a 13-gram in common with the calibration text."""
        share = row["overlap_13gram"]
        if share is None or share <= MARKED_SHARE:
            return ""
        self._overlaps[f"{row['calib']} on {row['distribution']}"] = share
        return OVERLAP

    def lines(self) -> list[str]:
        """All footnotes."""
        found = [f"[{number}] {reason}" for reason, number in self._reasons.items()]
        found += [f"{FALLBACK} gave way while quantizing: {fallback}" for fallback in self._fallbacks]
        for task, counts in self._cut.items():
            told = ", ".join(f"{count:,d} {what}" for what, count in counts.items())
            found.append(f"{CUT} {task}: cut because they are longer than what is read or generated: up to {told}")
        if self._overlaps:
            where, share = max(self._overlaps.items(), key=lambda one: one[1])
            found.append(
                f"{OVERLAP} more than {100 * MARKED_SHARE:.3g} % of the items have 13 tokens in a row in common with "
                "the calibration text (a stock phrase, a notice; longer passages are refused), so they may be easier "
                f"than others; at most {100 * share:.3g} %, {where} (column overlap_13gram)"
            )
        return found
