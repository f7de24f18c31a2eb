"""The click group `pyimgano`; each command lives in a module of its own.

Commands are imported when they are called or asked for help, so that `--help` needs
neither torch nor numpy.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import click

from ._version import __version__
from .command_errors import exit_code_of

COMMANDS: Final = {
    "init": ("init_cli", "init"),
    "manifest": ("manifest_cli", "manifest"),
    "preflight": ("preflight_cli", "preflight"),
    "train": ("train_cli", "train"),
    "infer": ("infer_cli", "infer"),
    "score": ("score_cli", "score"),
    "defects": ("defects_cli", "defects"),
    "benchmark": ("benchmark_cli", "benchmark"),
    "runs": ("runs_cli", "runs"),
    "report": ("report_cli", "report"),
    "bundle": ("bundle_cli", "bundle"),
    "demo": ("demo_cli", "demo"),
}


class LazyGroup(click.Group):
    """Imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of a project's life."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and give one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        command: click.Command = getattr(
            import_module(f".{module}", __package__), attribute
        )
        return command


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 1 failed (export, parity, a gate); 2 refused "
    "(usage, config, data, bundle).",
)
@click.version_option(__version__, prog_name="pyimgano")
def group() -> None:
    """Train, benchmark and export visual anomaly detectors.

    \b
    A project's life:
      pyimgano init part
      pyimgano manifest create --from part
      pyimgano preflight --config part/config.json
      pyimgano train --config part/config.json --output run
      pyimgano infer --from-run run photos/
      pyimgano bundle export --run run --output bundle
      pyimgano-runtime check bundle
      pyimgano-runtime infer --bundle bundle photos/
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code."""
    return exit_code_of(group, arguments, "pyimgano")


if __name__ == "__main__":
    sys.exit(main())
