"""Which package of onnxruntime is installed, and what to install where none loads.

Several packages bring the module `onnxruntime` (onnxruntime-gpu, -openvino, ...). They
overwrite each other's files, so nobody who has one is told to install another.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

_NO_BUILDS: Final = ("onnxruntime-extensions", "onnxruntime-genai", "onnxruntime-tools")


def installed_builds(places: list[str] | None = None) -> list[tuple[str, str]]:
    """Give (package, version) of every installed build of onnxruntime, sorted.

    Args:
        places: folders of packages; default: those that Python imports from.
    """
    found = set()
    for place in sys.path if places is None else places:
        for pattern in ("onnxruntime*.dist-info", "ort_nightly*.dist-info"):
            for folder in Path(place or ".").glob(pattern):
                name, _, version = folder.stem.partition("-")
                package = name.replace("_", "-")
                if not package.startswith(_NO_BUILDS):
                    found.add((package, version))
    return sorted(found)


def describe_build() -> str:
    """Give "onnxruntime-gpu 1.31.1", or what is known of the module that loads."""
    from .quiet_onnxruntime import load_onnxruntime

    builds = installed_builds()
    if not builds:  # built from source, or vendored
        return f"onnxruntime {load_onnxruntime().__version__}"
    return " and ".join(f"{package} {version}" for package, version in builds)


def install_hint(error: ImportError) -> str:
    """Say what to install for an import that failed, and keep a build that is there."""
    builds = installed_builds()
    missing = (error.name or "").partition(".")[0]
    if missing == "numpy":
        return "pip install numpy" + ("" if builds else " onnxruntime")
    if not builds:
        return (
            "pip install numpy onnxruntime (or, for an accelerator, one build that has "
            "it instead: onnxruntime-gpu, onnxruntime-openvino, ...)"
        )
    package, version = builds[0]
    return (
        f"{package} {version} is installed but does not load; "
        f"pip install --force-reinstall {package}"
    )
