"""PyImgAno: visual anomaly detection from training to the factory line."""

from __future__ import annotations

from importlib import metadata as _metadata

from pyimgano_runtime._version import __version__ as _runtime_version

from ._version import __version__

__all__ = ["__version__"]


def _is_installed(distribution: str) -> bool:
    try:
        found = _metadata.distribution(distribution)
    except _metadata.PackageNotFoundError:
        return False
    # What a build leaves beside the sources (egg-info) is not an installation.
    return found.read_text("INSTALLER") is not None


def _check_installation() -> None:
    """Refuse two copies of the runtime: which one runs would depend on the path."""
    if all(_is_installed(name) for name in ("pyimgano", "pyimgano-runtime")):
        raise ImportError(
            "both pyimgano and pyimgano-runtime are installed, and pyimgano already "
            "carries the runtime; run: pip uninstall pyimgano-runtime, then install "
            "pyimgano from its checkout again"
        )
    if __version__ != _runtime_version:
        raise ImportError(
            f"pyimgano is {__version__} but pyimgano_runtime is {_runtime_version}; "
            "install pyimgano from its checkout again: pip install ."
        )


_check_installation()
