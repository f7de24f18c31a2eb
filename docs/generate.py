"""Writes the parts of the docs that come from code; `--check` only compares.

    python docs/generate.py          rewrite
    python docs/generate.py --check  exit 1 and name what is out of date

A block in a page stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from pyimgano.cli import group
from pyimgano.datasets.issues import ISSUE_CODES
from pyimgano.detectors import DETECTORS, detector_class
from pyimgano.metrics.report_keys import REPORT_KEYS
from pyimgano.option_fields import options_schema, options_table
from pyimgano.pipelines.suite_file import shipped_suites
from pyimgano.reporting.leaderboard_rows import COLUMNS
from pyimgano.workbench.config import WorkbenchConfig, config_schema
from pyimgano_runtime.cli import main as runtime_main

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

import detector_pages  # noqa: E402 - found through the line above
import preflight_examples  # noqa: E402 - likewise

RESOURCES = DOCS.parent / "pyimgano" / "resources"
INFER_CONFIG_SCHEMA = RESOURCES / "infer_config.schema.json"
WIDTH = 88
TRAINING_COMMANDS = (
    (),
    ("init",),
    ("manifest",),
    ("manifest", "create"),
    ("manifest", "validate"),
    ("manifest", "stats"),
    ("manifest", "split"),
    ("preflight",),
    ("train",),
    ("infer",),
    ("score",),
    ("defects",),
    ("bundle",),
    ("bundle", "export"),
    ("bundle", "verify"),
    ("bundle", "accept"),
    ("bundle", "inspect"),
    ("bundle", "diff"),
    ("bundle", "sign"),
    ("benchmark",),
    ("runs",),
    ("runs", "list"),
    ("runs", "show"),
    ("runs", "compare"),
    ("report",),
    ("demo",),
)
RUNTIME_COMMANDS = (
    *((), ("infer",), ("check",), ("info",)),
    *(("bench",), ("calibrate",)),
)


def detector_markdown(cls: Any) -> str:
    """Give the options of a detector, and its presets."""
    lines = [options_markdown(cls.Config), ""]
    for name, values in cls.presets.items():
        chosen = ", ".join(
            f"`{key}` {json.dumps(list(value) if isinstance(value, tuple) else value)}"
            for key, value in values.items()
        )
        lines.append(f"- preset `{name}`: {chosen}")
    return "\n".join(lines)


def options_markdown(cls: Any) -> str:
    """Give the table of an options dataclass."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for name, default, meaning in options_table(cls):
        lines.append(f"| `{name}` | `{default}` | {meaning} |")
    return "\n".join(lines)


def training_help() -> str:
    """Give the help of every `pyimgano` command."""
    parts = []
    for words in TRAINING_COMMANDS:
        result = CliRunner().invoke(
            group, [*words, "--help"], prog_name="pyimgano", terminal_width=WIDTH
        )
        parts.append(section(" ".join(("pyimgano", *words)), result.output))
    return "\n\n".join(parts)


def runtime_help() -> str:
    """Give the help of every `pyimgano-runtime` command."""
    os.environ["COLUMNS"] = str(WIDTH)  # argparse folds lines at the terminal's width
    parts = []
    for words in RUNTIME_COMMANDS:
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            runtime_main([*words, "--help"])
        parts.append(section(" ".join(("pyimgano-runtime", *words)), text.getvalue()))
    return "\n\n".join(parts)


def section(title: str, text: str) -> str:
    """Give a heading and a block of plain text."""
    return f"### `{title}`\n\n```text\n{text.rstrip()}\n```"


def schema_markdown(schema: dict[str, Any], name: str) -> str:
    """Give the table of one object of a JSON Schema."""
    definition = schema["$defs"][name]
    lines = ["| field | type | needed | meaning |", "|---|---|---|---|"]
    for field, node in definition["properties"].items():
        needed = "yes" if field in definition.get("required", ()) else "no"
        kind = schema_type(schema, node)
        cells = (f"`{field}`", kind, needed, node["description"])
        escaped = [cell.replace("|", "\\|") for cell in cells]
        lines.append(f"| {' | '.join(escaped)} |")
    return "\n".join(lines)


def schema_type(schema: dict[str, Any], node: dict[str, Any]) -> str:
    """Give the type of a JSON Schema's value in words, with its range."""
    if "$ref" in node:
        definition = schema["$defs"][node["$ref"].removeprefix("#/$defs/")]
        title: str = definition["title"]
        has_table = "properties" in definition
        return f"[{title}](#{title.replace(' ', '-')})" if has_table else title
    if "anyOf" in node:
        return " or ".join(schema_type(schema, option) for option in node["anyOf"])
    if "const" in node or "enum" in node:
        values = node.get("enum", [node.get("const")])
        return ", ".join(f"`{json.dumps(value)}`" for value in values)
    if node["type"] == "array":
        return f"list of {schema_type(schema, node['items'])}"
    if node["type"] == "object":
        inner = node.get("additionalProperties")
        inner = inner or next(iter(node.get("properties", {}).values()), None)
        return f"object of {schema_type(schema, inner)}" if inner else "object"
    words = {"string": "text", "boolean": "true or false", "integer": "whole number"}
    low, high = node.get("minimum"), node.get("maximum")
    reach = f", at least {low}" if high is None else f" from {low} to {high}"
    reach = "" if low is None else reach
    return words.get(node["type"], node["type"]) + reach


def preflight_codes() -> str:
    """Give the table of every code."""
    lines = ["| code | severity | meaning | what to do |", "|---|---|---|---|"]
    for code, facts in ISSUE_CODES.items():
        cells = (f"`{code}`", facts.severity, facts.meaning, facts.advice)
        escaped = [cell.replace("|", "\\|") for cell in cells]
        lines.append(f"| {' | '.join(escaped)} |")
    return "\n".join(lines)


def preflight_output() -> str:
    """Give, for each code, the smallest data set that raises it and its line."""
    parts = []
    for code, example in preflight_examples.EXAMPLES.items():
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home) / "data"
            folder.mkdir()
            report, text = example.run(folder)
            message = next(i.message for i in report.issues if i.code == code)
            message = message.replace(f"{folder}/", "").replace(
                f"{home}/data_", "../data_"
            )
            message = message.replace(str(folder), ".")
        shown = (shortened(text) if text else example.layout).rstrip()
        note = preflight_examples.NOTES.get(code)
        shown = "\n".join(filter(None, [shown, f"({note})" if note else ""]))
        command = example.command()
        parts.append(
            f"### `{code}`\n\n```text\n{shown}\n```\n\n"
            f"```text\n$ {command}\n{message}\n```"
        )
    return "\n\n".join(parts)


def shortened(text: str) -> str:
    """Give the first and the last lines of a longer manifest."""
    lines = text.splitlines()
    if len(lines) <= 4:
        return text
    return "\n".join([*lines[:2], f"... ({len(lines) - 3} more)", lines[-1]])


def preflight_not_shown() -> str:
    """Give the codes without an example, and why."""
    reasons = preflight_examples.NOT_SHOWN
    return "\n".join(f"- `{code}`: {reason}" for code, reason in reasons.items())


def report_keys() -> str:
    """Give the table of the numbers that gates and comparisons know."""
    lines = ["| key | better | what it is |", "|---|---|---|"]
    lines += [f"| `{key.name}` | {key.better} | {key.meaning} |" for key in REPORT_KEYS]
    return "\n".join(lines)


def shipped_suites_markdown() -> str:
    """Give the table of the suites in the wheel."""
    lines = ["| suite | what |", "|---|---|"]
    for name in shipped_suites():
        path = RESOURCES / "suites" / f"{name}.json"
        suite = json.loads(path.read_text(encoding="utf-8"))
        lines.append(f"| `{name}` | {suite['description']} |")
    return "\n".join(lines)


def blocks() -> dict[str, Callable[[], str]]:
    """Give every generated block by name."""
    table: dict[str, Callable[[], str]] = {
        "training-help": training_help,
        "runtime-help": runtime_help,
        "preflight-codes": preflight_codes,
        "preflight-output": preflight_output,
        "preflight-not-shown": preflight_not_shown,
        "config-options": lambda: options_markdown(WorkbenchConfig),
        "report-keys": report_keys,
        "leaderboard-columns": lambda: ", ".join(f"`{name}`" for name in COLUMNS),
        "shipped-suites": shipped_suites_markdown,
        "detector-capabilities": detector_pages.capabilities,
        "detector-image-accuracy": detector_pages.image_accuracy,
        "detector-pixel-accuracy": detector_pages.pixel_accuracy,
        "detector-costs": detector_pages.costs,
        "detector-machines": detector_pages.machines,
    }
    schema = json.loads(INFER_CONFIG_SCHEMA.read_text(encoding="utf-8"))
    for name, definition in schema["$defs"].items():
        if "properties" in definition:
            table[f"schema-{name}"] = lambda name=name: schema_markdown(schema, name)
    for name in DETECTORS:
        cls = detector_class(name)
        table[f"options-{name}"] = lambda cls=cls: detector_markdown(cls)
        table[f"numbers-{name}"] = lambda name=name: detector_pages.page_numbers(name)
    return table


def generated_files() -> dict[Path, str]:
    """Give the whole text of each file that holds something generated."""
    made = blocks()
    files = {}

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{made[match[2]]()}\n{match[3]}"

    pattern = re.compile(r"(<!-- generated: (\S+) -->)\n.*?(<!-- end -->)", re.DOTALL)
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        numbers = f"<!-- generated: numbers-{page.stem} -->\n<!-- end -->"
        text = text.replace(detector_pages.PLACEHOLDER, numbers)
        if "<!-- generated:" in text:
            files[page] = pattern.sub(fill, text)
    schema = config_schema()
    schema["properties"]["model"]["properties"]["options"]["description"] += (
        "; see $defs"
    )
    schema["$defs"] = {
        name: options_schema(detector_class(name).Config) for name in DETECTORS
    }
    files[RESOURCES / "train_config.schema.json"] = json.dumps(schema, indent=2) + "\n"
    published = DOCS / INFER_CONFIG_SCHEMA.name
    files[published] = INFER_CONFIG_SCHEMA.read_text(encoding="utf-8")
    return files


def main() -> int:
    """Rewrite or compare."""
    stale = []
    for path, text in generated_files().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    for path in stale:
        print(path.relative_to(DOCS.parent))
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
