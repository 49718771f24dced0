"""What is wrong with a command line, in the words of the one who typed it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from quantbench.config.facts import set_keys
from quantbench.config.folders import Folders
from quantbench.core.build import unknown_choice, unknown_key
from quantbench.core.errors import ConfigError


@contextmanager
def hydra_explained(folders: Folders) -> Iterator[None]:
    """Turn Hydra's errors into a ConfigError that says what would be right."""
    try:
        yield
    except HydraException as error:
        raise _said_by_us(error) or ConfigError(explain(error, folders)) from error


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
            return unknown_key(key, sorted(valid | set_keys() if key.startswith("calib.") else valid))
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file is not None and cause.options:
            group, _, name = str(cause.missing_cfg_file).rpartition("/")
            where = f" Looked in {folders.searched_for_sweeps}." if group == "sweep" else ""
            return unknown_choice(group, name, cause.options) + where
        cause = cause.__cause__
    return str(error).partition("Config search path")[0].strip()


def explain_value(error: OmegaConfBaseException) -> ConfigError:
    """What is wrong with an interpolation, or what a resolver of ours found wrong, which OmegaConf wraps."""
    return _said_by_us(error) or ConfigError(f"{error.full_key or 'config'}: {error.msg or error}")


def _said_by_us(error: BaseException) -> ConfigError | None:
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, ConfigError):
        inner = inner.__cause__ or inner.__context__
    return inner
