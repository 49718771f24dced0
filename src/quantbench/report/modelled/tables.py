"""The roofline of one model as tables: its operators, and what they add up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantbench.report.modelled.columns import ModelledRow
from quantbench.report.sweep_runs import SweepRun
from quantbench.report.table import Table, TableCell
from quantbench.roofline.cost import Cost, Timed
from quantbench.roofline.hardware import Hardware

OPERATORS = ["operator", "count", "operations", "weights", "cache", "activations", "ops/byte", "bound", "ms", "share"]
RUNS = ["recipe", "calibration", "bits", "weights", "arithmetic", "decode ms", "prefill ms", "memory", "largest batch"]


def operator_table(cost: Cost, phase: str, timed: Sequence[Timed]) -> Table:
    """A line for each operator of a phase, all blocks together, and one for their sum."""
    total = sum(one.seconds for one in timed)
    lines = [
        [
            one.name,
            str(one.count),
            amount(one.flops),
            *(f"{amount(part)}B" for part in (one.weight_bytes, one.cache_bytes, one.activation_bytes)),
            f"{one.intensity:.3g}" if one.flops else "",
            one.bound,
            f"{1e3 * one.seconds:.4g}",
            f"{one.seconds / total:.1%}",
        ]
        for one in timed
    ]
    flops, moved = sum(one.flops for one in timed), sum(one.bytes for one in timed)
    parts = [sum(getattr(one, f"{part}_bytes") for one in timed) for part in ("weight", "cache", "activation")]
    sums = ["all", "", amount(flops), *(f"{amount(part)}B" for part in parts), f"{flops / moved:.3g}", ""]
    lines.append([*sums, f"{1e3 * total:.4g}", "100.0%"])
    return Table(
        slug=phase,
        title=f"{phase}: {cost.model.name} on {cost.machine.name}, {cost.load.words}",
        header=OPERATORS,
        rows=[[TableCell(text) for text in line] for line in lines],
    )


def summary(cost: Cost) -> list[str]:
    """What the operators add up to, and what the numbers rest on."""
    machine, load, precision = cost.machine, cost.load, cost.precision
    several = load.tensor_parallel > 1
    each = "each chip" if several else machine.name
    missing = {precision.arithmetic, precision.other_arithmetic} - set(machine.rates)
    found = [
        f"Decode {cost.decode_ms:.4g} ms a token ({1e3 * load.batch / cost.decode_ms:,.0f} tokens/s), prefill "
        f"{cost.prefill_ms:.4g} ms"
        + (f", {load.new_tokens:,d} new tokens in all {cost.answer_ms:.4g} ms." if load.new_tokens else "."),
        f"Memory of {each}: weights {amount(cost.weight_bytes)}B, key-value cache "
        f"{amount(cost.cache_bytes(load.batch))}B, activations {amount(cost.activation_bytes(load.batch))}B, together "
        f"{amount(cost.memory_bytes)}B of {amount(machine.memory)}B; largest batch in {load.memory_share:.0%} of it: "
        f"{cost.largest_batch:,d}.",
        f"Ridge: {machine.ridge(precision.arithmetic):.0f} operations a byte.",
        *(f"{machine.name} has no {kind} arithmetic: 16-bit floats are taken." for kind in sorted(missing)),
        source(machine),
        "Modelled, not measured: every operator at the peak of the machine, one after another (docs/roofline.md).",
    ]
    if cost.memory_bytes > machine.memory * load.memory_share:
        found.insert(2, f"It does not fit: that is more than {load.memory_share:.0%} of the memory.")
    return found


def source(machine: Hardware) -> str:
    """Where a machine's numbers stand."""
    return f"Numbers of {machine.name}: {machine.source}."


def run_table(runs: Sequence[SweepRun], rows: Mapping[str, ModelledRow], title: str) -> Table:
    """A line for each finished run of sweeps."""
    lines = []
    for run in runs:
        row = rows.get(run.run_id or "")
        if row is None:
            continue
        recipe = "full precision" if run.full_precision else " ".join(p for p in (run.quantizer, run.variant) if p)
        calib = "" if run.data_free else " ".join(p for p in (run.calib, run.calib_variant) if p)
        lines.append(
            [
                recipe,
                calib,
                "" if run.full_precision or run.bits is None else f"{run.bits:.4g}",
                f"{amount(row['modelled_weight_bytes'] or 0)}B",
                str(row["modelled_arithmetic"]),
                f"{row['modelled_decode_ms']:.4g}",
                f"{row['modelled_prefill_ms']:.4g}",
                f"{amount(row['modelled_memory_bytes'] or 0)}B",
                f"{row['modelled_largest_batch']:,d}",
            ]
        )
    body = [[TableCell(text) for text in line] for line in lines]
    return Table(slug="roofline", title=title, header=RUNS, rows=body, heads=2)


def amount(value: float) -> str:
    """A number with a decimal prefix: 1.23 G."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.4g} {prefix}"
    return f"{value:.4g} "
