"""What is wrong with a command line, in the words of the one who typed it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from quantbench.config.damaged import damaged_option
from quantbench.config.facts import set_keys
from quantbench.config.folders import Folders
from quantbench.config.groups import ROOT
from quantbench.config.overrides import as_typed
from quantbench.config.quoting import unreadable_override
from quantbench.core.build import unknown_choice, unknown_key
from quantbench.core.errors import ConfigError, QuantbenchError

_AMBIGUOUS = re.compile(r"Ambiguous value for argument '(.*)'$", re.MULTILINE)

COMMANDS = {
    ("eval", "roofline"): "modelled time and memory need no test and no weights, so they are a command: "
    "quantbench roofline MODEL|RUN|SWEEP --hardware NAME, and --hardware of collate, pareto and report",
}
"""What is asked for as an option, and is a command."""


@contextmanager
def hydra_explained(folders: Folders) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise, and what a damaged option file of the user's brings about, into ConfigError.

    A ConfigError says what would be right. Whatever else is raised goes through.
    """
    try:
        yield
    except (QuantbenchError, BrokenPipeError):  # the latter where Hydra prints what is composed
        raise
    except OverrideParseException as error:
        raise ConfigError(unreadable_override(as_typed([error.override])[0], error.message)) from error
    except OmegaConfBaseException as error:
        raise explain_value(error) from error
    except Exception as error:
        said = _said_by_us(error) or damaged_option(error, folders)
        if said is None and (isinstance(error, HydraException) or _raised_by_hydra(error)):
            said = ConfigError(explain(error, folders))
        if said is None:
            raise
        raise said from error


def check_chosen(choices: Mapping[str, Any]) -> None:
    """Raise ConfigError if a group that a cell needs has no option: it was deleted with ~, or set to null."""
    for group in ROOT:
        if choices.get(group) is None:
            raise ConfigError(f"{group}: a cell needs one; give {group}=NAME (quantbench list {group} shows them)")


def check_additions(overrides: Sequence[str], config: DictConfig, groups: Collection[str]) -> None:
    """Refuse `+key=value` where the key's parent has a fixed set of options. Needs no component to be imported.

    Hydra itself accepts any key behind a plus, and suggests the plus for a misspelt key.
    """
    parser = OverridesParser.create()
    for override in parser.parse_overrides(list(overrides)):
        name = override.get_key_element().lstrip("+~")
        key = name.partition("@")[0]
        if not override.is_add() or key in groups:
            continue
        parent_key, _, leaf = key.rpartition(".")
        parent = OmegaConf.select(config, parent_key) if parent_key else config
        if not isinstance(parent, DictConfig) or ("_target_" not in parent and parent_key):
            continue
        valid = [str(k) for k in parent if str(k) not in {leaf, "_target_", "hydra"}]
        if leaf in OmegaConf.to_container(parent, resolve=False):  # type: ignore[operator]
            top = [g for g in groups if not re.search("[/@]", g)] if not parent_key else []
            raise ConfigError(unknown_key(key, sorted({*valid, *top})))


def explain(error: BaseException, folders: Folders) -> str:
    """What Hydra could not compose, with what would be right; not its advice to add a misspelt key with a plus."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigKeyError | ConfigAttributeError) and isinstance(cause.parent_node, DictConfig):
            valid = {str(k) for k in cause.parent_node if str(k) not in {"_target_", "hydra"}}
            key = str(cause.full_key)
            if not valid:
                if OmegaConf.to_container(cause.parent_node, resolve=False) is None:
                    return f"{key}: no such option. {key.rpartition('.')[0]} is null here: there is nothing to set"
                return f"{key}: no such option. There are none beside it; +{key}=VALUE adds one"
            return unknown_key(key, sorted(valid | set_keys() if key.startswith("calib.") else valid))
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file is not None and cause.options:
            group, _, name = str(cause.missing_cfg_file).rpartition("/")
            if instead := COMMANDS.get((group, name)):
                return f"{group}={name}: {instead}"
            where = f" Looked in {folders.searched_for_sweeps}." if group == "sweep" else ""
            return unknown_choice(group, name, cause.options) + where
        cause = cause.__cause__
    if (ambiguous := _AMBIGUOUS.match(str(error))) is not None:
        (override,) = as_typed([ambiguous[1]])
        return (
            f"{override}: one value or several? -m before all sweeps them, [...] around them makes a list, quotes make "
            "them one text"
        )
    said = str(error).partition("Config search path")[0].strip()
    return said or f"the command line cannot be composed ({type(error).__name__})"


def explain_value(error: OmegaConfBaseException, key: str = "config") -> ConfigError:
    """What is wrong with an interpolation, or what a resolver of ours found wrong, which OmegaConf wraps.

    key: where the value stands, if the error does not say it
    """
    said = (str(error.msg or error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, InterpolationResolutionError):
        said += "; ${KEY} stands for a key of the configuration, ${oc.env:NAME} for a variable of the environment"
    return _said_by_us(error) or ConfigError(f"{error.full_key or key}: {said}")


def _raised_by_hydra(error: BaseException) -> bool:
    """Whether it is what Hydra says of a command line or an option, for which it has no exception of its own."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and bool({"hydra", "omegaconf"} & set(Path(frames[-1].filename).parts))


def _said_by_us(error: BaseException) -> ConfigError | None:
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, ConfigError):
        inner = inner.__cause__ or inner.__context__
    return inner
