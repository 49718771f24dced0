"""The names of `quantbench.core.build`, where they moved."""

from quantbench.core.build import (
    DESCRIPTION,
    build,
    import_target,
    option_names,
    unknown_choice,
    unknown_key,
)

__all__ = ["DESCRIPTION", "build", "import_target", "option_names", "unknown_choice", "unknown_key"]
