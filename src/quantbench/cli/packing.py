"""The sub-commands about results measured in parts: pack and merge. Each returns its exit status."""

from __future__ import annotations

import sys

from quantbench.cli.parser import subcommand
from quantbench.core.errors import StoreError
from quantbench.core.files import readable_bytes
from quantbench.core.paths import local_path
from quantbench.core.progress import counted


def pack(arguments: list[str]) -> int:
    """`quantbench pack SWEEP ... --to FILE`: records and scores of sweeps as one small file, without weights."""
    parser = subcommand("pack", "Records and scores of sweeps, without weights and single items, as one small file.")
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP")
    parser.add_argument("--to", type=local_path, required=True, metavar="FILE", help="for example part1.tar.xz")
    given = parser.parse_args(arguments)
    from quantbench.config.settings import tells_apart
    from quantbench.launch.overview import refreshed
    from quantbench.store.pack import pack, write_pack
    from quantbench.store.store import Store

    store = Store(given.output_dir)
    try:
        names = [store.find_sweep(name) for name in given.sweeps]
    except StoreError as error:
        raise StoreError(f"pack {error}") from error
    manifests = [refreshed(found, store) for name in names if (found := store.load_manifest(name)) is not None]
    contents = pack(store, manifests, tells_apart)
    size = write_pack(given.to, contents)
    scores = sum(name.endswith(".totals.npy") for name in contents)
    runs = sum(name.endswith("/record.json") for name in contents)
    sys.stdout.write(f"{given.to}: {counted(runs, 'run')}, {counted(scores, 'score')}, {readable_bytes(size)}\n")
    return 0


def merge(arguments: list[str]) -> int:
    """`quantbench merge FILE ...`: what `pack` wrote, added to the results here."""
    parser = subcommand("merge", "Add what `quantbench pack` wrote, here or on another machine, to the results.")
    parser.add_argument("files", nargs="+", type=local_path, metavar="FILE")
    given = parser.parse_args(arguments)
    from quantbench.config.settings import tells_apart
    from quantbench.store.merge import merge
    from quantbench.store.pack import read_pack
    from quantbench.store.store import Store

    store = Store(given.output_dir)
    sweeps: dict[str, None] = {}
    for path in given.files:
        merged = merge(store, read_pack(path), str(path), tells_apart)
        sweeps |= dict.fromkeys(merged.sweeps)
        known = f"; {counted(merged.known_runs, 'run')}, {counted(merged.known_scores, 'score')} known before"
        sys.stdout.write(
            f"{path}: {counted(merged.new_runs, 'run')}, {counted(merged.new_scores, 'score')} added{known}\n"
        )
    sys.stdout.write(f"Tables: quantbench collate {' '.join(sweeps)}\n")
    return 0
