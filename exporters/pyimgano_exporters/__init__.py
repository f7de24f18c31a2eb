"""Turns a fitted detector into a bundle: graph, checks, parity, document."""

from ._version import __version__

__all__ = ["__version__"]
