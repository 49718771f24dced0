"""Errors a user can act on. The command prints their message without a traceback and ends non-zero."""


class QuantbenchError(Exception):
    """Base class: the message names the key or file, the value, and what would be right."""


class ConfigError(QuantbenchError):
    """A key, value or combination of options that cannot be run."""


class DataError(QuantbenchError):
    """A text or data set that is missing, unreachable, too short, or not what its yaml says."""


class ModelError(QuantbenchError):
    """A model that is missing, unreachable, or of a structure that cannot be quantized."""


class StoreError(QuantbenchError):
    """A stored run or score that cannot be read, written, or trusted."""


EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
"""Exit statuses of the command: a cell failed, a QuantbenchError, Ctrl-C."""
