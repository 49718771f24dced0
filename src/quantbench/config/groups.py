"""The groups of options, declared once: what each is for, and what depends on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """A folder of options under conf/, or a file of named parts.

    root    it is a node of the root: GROUP=OPTION chooses it
    cell    it tells cells of a grid apart, and its choice is kept with each
    listed  `quantbench list` shows it
    parts   its options are the entries of one file, conf/parts/GROUP.yaml
    """

    name: str
    about: str
    root: bool = False
    cell: bool = False
    listed: bool = True
    parts: bool = False


GROUPS = (
    Group("model", "models of the hub, of a folder, of a package", root=True, cell=True),
    Group("calib", "data sets to calibrate on; each can be tested on as well", root=True, cell=True),
    Group("quantizer", "recipes", root=True, cell=True),
    Group("eval", "what is tested; eval.sets=[NAME,...] takes the names of calib", root=True, cell=True),
    Group("scale", "how much text a study uses", root=True, cell=True),
    Group("cluster", "where cells run", root=True),
    Group("sweep", "grids, chosen by +sweep=NAME"),
    Group("family", "kinds of data sets: how they are read and scored, and which are tested on each other"),
    Group("format", "numbers that weights are stored as"),
    Group("activation", "numbers that inputs of layers are rounded to"),
    Group("kv_cache", "numbers that keys and values are rounded to"),
    Group("rotation", "bases that weights and activations are rotated to"),
    Group("transform", "rewrites before rounding"),
    Group("clip", "searches of clipped ranges"),
    Group("rounding", "how weights are put on their grid"),
    Group("policy", "which layers get which format"),
    Group("allocation", "bits shared out by sensitivity"),
    Group("recipe", "what every recipe starts from", listed=False),
    Group("sampler", "how sequences are drawn from a text (calib.sampler=NAME)", parts=True),
    Group("template", "prompts (calib.template=NAME)", parts=True),
    Group("scoring", "how a test is scored", parts=True),
    Group("render", "how dialogues become text (calib.render=NAME)", parts=True),
    Group("lm_eval", "tasks of lm-eval that are described here (eval=lm_eval eval.names=[NAME])"),
    Group("hardware", "machines whose time and memory are modelled (quantbench roofline --hardware NAME)"),
)

CELL = tuple(group.name for group in GROUPS if group.cell)
ROOT = tuple(group.name for group in GROUPS if group.root)
LISTED = tuple(group.name for group in GROUPS if group.listed)


def group(name: str) -> Group:
    """A group by its name; KeyError if there is none."""
    return {one.name: one for one in GROUPS}[name]
