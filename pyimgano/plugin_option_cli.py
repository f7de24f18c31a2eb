"""The option `--plugin` of the commands that make or load detectors."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def takes_plugins(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option `--plugin`; the plug-ins are loaded before it runs.

    The current folder is looked in last, as a module of it is what people name; it
    cannot hide a package that is installed.
    """

    @click.option(
        "--plugin",
        "plugins",
        multiple=True,
        metavar="MODULE:CLASS",
        help="Detector of your own, such as my_package.detector:MyDetector; may be "
        "repeated. docs/plugins.md",
    )
    @functools.wraps(command)
    def run(*arguments: Any, plugins: tuple[str, ...], **options: Any) -> Any:
        if plugins:
            from .detectors.plugins import load_plugins

            here = str(Path.cwd())
            if here not in sys.path:
                sys.path.append(here)
            load_plugins(plugins)
        return command(*arguments, **options)

    return run
