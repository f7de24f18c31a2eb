"""Bundles made to do harm, what the runtime says of each, and with which exit code.

    python runtime/tests/hostile_bundles.py        the table of docs/security.md

`test_hostile_bundles.py` makes and runs every case, and holds the table to it.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from hostile_parts import (
    MAP,
    MODEL,
    ORT_FORMAT,
    Maker,
    add_twin,
    allowed_bomb,
    changed,
    claiming_model,
    deep_json,
    edited,
    external_model,
    fifo,
    folded_expand,
    folder_for_model,
    foreign_node,
    hard_link,
    huge_header,
    object_map,
    other_inputs,
    png_bomb,
    set_path,
    set_threshold,
    sized,
    sparse_model,
    symlink,
    twice,
    with_body,
    with_file,
    with_model,
    with_operator,
    with_text,
)
from tiny_bundle import graph, grey, map_bytes, model, save_picture

from pyimgano_runtime.cores import usable_cores
from pyimgano_runtime.memory_limit import MIB, least_limit, show_size

CHECK: Final = ("check", "{bundle}")
CHECK_IN_4G: Final = (*CHECK, "--max-memory", "{4G}")
INFER_IN_4G: Final = (
    *("infer", "--bundle", "{bundle}", "--max-memory", "{4G}", "{photo}"),
)


@dataclass(frozen=True, slots=True)
class Hostile:
    """One bundle, and what must come of it."""

    name: str
    make: Maker
    code: int
    sentence: str  # a part of what is printed
    command: tuple[str, ...] = CHECK


LEAVES: Final = "leaves the bundle folder"
TOO_MUCH: Final = "the model asks for more memory than there is"
HOSTILE: Final[tuple[Hostile, ...]] = (
    # paths
    Hostile("`files[].path` with `..`", set_path("../../etc/passwd"), 3, LEAVES),
    Hostile("`models.*.file` with `..`", set_path("../m.onnx", "model"), 3, LEAVES),
    Hostile("golden's `image` with `..`", set_path("a/../../b", "image"), 3, LEAVES),
    Hostile("golden's `map` with `..`", set_path("../m.npy", "map"), 3, LEAVES),
    Hostile("absolute path", set_path("/etc/passwd"), 3, "is absolute"),
    Hostile("drive letter", set_path("C:/m.onnx"), 3, "has a backslash or colon"),
    Hostile("drive of the folder", set_path("c:m.onnx"), 3, "has a backslash or colon"),
    Hostile("backslash", set_path("models\\tiny.onnx"), 3, "has a backslash or colon"),
    Hostile("a device's name", set_path("models/CON"), 3, "is a device on Windows"),
    Hostile("newline after a path", set_path(MODEL + "\n"), 3, "has the name"),
    Hostile("case twins", edited(add_twin), 3, "are the same file on systems that"),
    # files
    Hostile("file is a symlink", symlink(MODEL), 3, "no links"),
    Hostile("folder is a symlink", symlink("models"), 3, "no links"),
    Hostile("file with two hard links", hard_link(MODEL), 3, "has 2 hard links"),
    Hostile("FIFO in a file's place", fifo(MODEL), 3, "is not a regular file"),
    Hostile("folder in the model's place", changed(folder_for_model), 3, MODEL),
    Hostile(
        "another size than listed",
        edited(lambda d: d["files"][0].update(size=1)),
        3,
        "expected 1; the file was changed after export",
    ),
    Hostile(
        "another hash than listed",
        edited(lambda d: d["files"][0].update(sha256="0" * 64)),
        3,
        "the file was changed after export",
    ),
    Hostile(
        "listed file is missing",
        changed(lambda folder: (folder / MODEL).unlink()),
        3,
        "the file is missing",
    ),
    Hostile(
        "a size of 3 GB claimed",
        edited(lambda d: d["files"][0].update(size=3_000_000_000)),
        3,
        "expected 3000000000",
    ),
    Hostile(
        "a model of 3 GB, a hole",
        changed(sparse_model),
        3,
        "expected at most 2147483648",
    ),
    Hostile("document is a symlink", symlink("infer_config.json"), 3, "no links"),
    Hostile("document is a FIFO", fifo("infer_config.json"), 3, "not a regular file"),
    Hostile(
        "document with two links", hard_link("infer_config.json"), 3, "2 hard links"
    ),
    # document
    Hostile("10 MB of nested JSON", with_text(deep_json), 3, "nested more than 64"),
    Hostile("a key twice", with_text(twice), 3, 'the key "kind" stands twice'),
    Hostile("byte-order mark", with_text(lambda t: "\ufeff" + t), 3, "byte-order mark"),
    Hostile("threshold NaN", set_threshold(float("nan")), 3, "contains NaN"),
    Hostile("threshold Infinity", set_threshold(float("inf")), 3, "contains Infinity"),
    Hostile("threshold as a text", set_threshold("0.5"), 3, 'found "0.5", expected a'),
    Hostile("threshold beyond float32", set_threshold(1e39), 3, "expected a finite"),
    Hostile(
        "negative size of a file",
        edited(lambda d: d["files"][0].update(size=-1)),
        3,
        "files[0].size: found -1, expected a whole number of at least 0",
    ),
    Hostile(
        "negative size of a map",
        edited(
            lambda d: d["categories"]["part"]["map_geometry"].update(map_size=[-4, 6])
        ),
        3,
        "expected [height, width], two positive whole numbers",
    ),
    Hostile(
        "newer schema, MINOR",
        edited(lambda d: d.update(schema_version="1.9")),
        3,
        "schema_version is 1.9",
    ),
    Hostile(
        "newer schema, MAJOR",
        edited(lambda d: d.update(schema_version="2.0")),
        3,
        "schema_version is 2.0",
    ),
    Hostile(
        "unknown `requires`",
        edited(lambda d: d.update(requires=["teleport"])),
        3,
        "requires ['teleport'], which runtime",
    ),
    Hostile(
        "unknown key outside `extensions`",
        edited(lambda d: d["input"].update(max_pixel=5)),
        3,
        'unknown key (did you mean "max_pixels"?)',
    ),
    Hostile(
        'kind "run"',
        edited(lambda d: d.update(kind="run")),
        3,
        "describes a training run, not a bundle",
    ),
    # model
    Hostile(
        "unknown operator", with_model(with_operator("Nope")), 3, "refuses the model"
    ),
    Hostile(
        "custom domain", with_model(foreign_node()), 3, "the domains ['com.example']"
    ),
    *(
        Hostile(op, with_model(with_body(op)), 3, f"uses the operators ['{op}']")
        for op in ("Loop", "If", "Scan")
    ),
    *(
        Hostile(
            f"{op} of 40 GB, constant",
            with_model(sized(op, computed=False)),
            3,
            f"has the operator {op} with the size [10000000000]"
            if op != "Pad"
            else "Pad with the size [0, 1",
        )
        for op in ("ConstantOfShape", "Expand", "Tile", "Resize", "Pad")
    ),
    Hostile(
        "ConstantOfShape of 40 GB, computed",
        with_model(sized("ConstantOfShape", computed=True)),
        3,
        "has a ConstantOfShape whose shape is computed",
    ),
    *(
        Hostile(
            f"{op} of 40 GB, computed: `check`",
            with_model(sized(op, computed=True)),
            5,
            TOO_MUCH,
            CHECK_IN_4G,
        )
        for op in ("Expand", "Tile", "Resize", "Pad")
    ),
    Hostile(
        "Expand of 40 GB, computed from a constant",
        with_model(folded_expand()),
        5,
        TOO_MUCH,
        CHECK_IN_4G,
    ),
    Hostile(
        "Expand of 40 GB, computed: `infer`",
        with_model(sized("Expand", computed=True)),
        4,
        TOO_MUCH,
        INFER_IN_4G,
    ),
    Hostile("external data", with_model(external_model()), 3, "outside of the file"),
    Hostile(
        "a tensor of 3 GB claimed",
        with_model(claiming_model()),
        3,
        "has 0 numbers of data",
    ),
    Hostile(
        "onnxruntime's own format", with_model(ORT_FORMAT), 3, "is not an ONNX model"
    ),
    Hostile(
        "other inputs", with_model(other_inputs()), 3, "has inputs ['image', 'mask']"
    ),
    Hostile(
        "other outputs",
        with_model(model(graph(with_map=False))),
        3,
        "and outputs ['score'], infer_config.json says",
    ),
    Hostile("opset 99", with_model(model(graph(), opset=99)), 3, "opset is 99"),
    # goldens
    Hostile(
        "goldens that disagree",
        with_model(model(graph(scale=1.01))),
        5,
        "the model scores differently here than at export",
    ),
    Hostile(
        "PNG bomb as a golden",
        with_file("golden/000.png", png_bomb),
        3,
        "refuse its golden golden/000.png: 12000 x 12000 pixels",
    ),
    Hostile(
        "PNG bomb that the bundle allows",
        allowed_bomb,
        3,
        "golden/000.png: the picture needs more memory than there is",
        (*CHECK, "--max-memory", "{least}"),
    ),
    Hostile(
        "map that is a pickle",
        with_file(MAP, lambda: pickle.dumps(print)),
        3,
        "is no plain .npy file",
    ),
    Hostile("map of objects", with_file(MAP, object_map), 3, "holds |O of shape"),
    Hostile(
        "map of another shape",
        with_file(MAP, lambda: map_bytes(np.zeros((6, 4), np.float32))),
        3,
        "the model gives float32 of shape (4, 6)",
    ),
    Hostile(
        "map with a huge header",
        with_file(MAP, huge_header),
        3,
        "is no plain .npy file",
    ),
)


def arguments(case: Hostile, place: Path) -> list[str]:
    """Make a case in an empty folder and give the command's arguments."""
    photo = save_picture(place / "photo.png", grey(7))
    case.make(place / "bundle")
    least = least_limit(usable_cores())
    names = {
        "bundle": str(place / "bundle"),
        "photo": str(photo),
        "least": show_size(least),
        "4G": show_size(max(least, 4096 * MIB)),
    }
    return [part.format(**names) for part in case.command]


def said(out: str, err: str, place: Path) -> str:
    """Give the one sentence of a refusal, its paths cut down to `bundle/`."""
    head, _, text = err.partition("pyimgano-runtime: ")
    if not text:
        head, text = "", json.loads(out.splitlines()[0])["error"]["message"]
    text = head + text  # nothing stands before the sentence
    return " ".join(text.replace(f"{place}/", "").split())


def run(case: Hostile, place: Path, *, alone: bool = False) -> tuple[int, str]:
    """Run one case, in this process where it may: exit code and sentence.

    Args:
        alone: as a process of its own, as every case with a memory limit is.
    """
    from pyimgano_runtime.cli import main

    command = arguments(case, place)
    if alone or "--max-memory" in command:
        line = [sys.executable, "-m", "pyimgano_runtime", *command]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        return done.returncode, said(done.stdout, done.stderr, place)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(command)
    return code, said(out.getvalue(), err.getvalue(), place)


def table(cases: Sequence[Hostile] = HOSTILE) -> str:
    """Give the Markdown table of all cases with their true output."""
    lines = ["| case | what it prints | exit |", "|---|---|---|"]
    for case in cases:
        with tempfile.TemporaryDirectory() as place:
            code, text = run(case, Path(place))
        lines.append(f"| {case.name} | {text.replace('|', chr(92) + '|')} | {code} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
