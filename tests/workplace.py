"""The fixture of tests that run the command."""

from __future__ import annotations
