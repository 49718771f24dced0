"""The version of quantbench, and of its numbers."""

__version__ = "0.1.0"

NUMERICS_VERSION = 3
"""Part of every run's identity. Raised, with a line in CHANGELOG.md, whenever any number may change."""
