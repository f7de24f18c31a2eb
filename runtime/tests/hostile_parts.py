"""What hostile bundles are made of: documents, files, models and goldens."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from fuzz_mutants import parsed, written
from tiny_bundle import (
    FLOAT,
    IMAGE_INFO,
    MAP_SIZE,
    attribute,
    field,
    graph,
    int64s,
    model,
    node,
    relist,
    tensor_info,
    write_bundle,
)

Document = dict[str, Any]
Maker = Callable[[Path], object]  # writes a bundle into a folder that is not there
MODEL: Final = "models/tiny.onnx"
MAP: Final = "golden/000.map.npy"
BOMB: Final = 10_000_000_000  # float32 numbers: 40 GB


def edited(change: Callable[[Document], object]) -> Maker:
    """Make a bundle whose document was changed."""
    return lambda folder: write_bundle(folder, edit=change)


def changed(change: Maker) -> Maker:
    """Make a whole bundle and then change its folder."""
    return lambda folder: change(write_bundle(folder))


def with_model(data: bytes) -> Maker:
    """Make a bundle of this model, honestly listed."""
    return lambda folder: write_bundle(folder, model_bytes=data)


def with_file(path: str, content: Callable[[], bytes]) -> Maker:
    """Make a bundle with one file replaced and honestly listed."""

    def make(folder: Path) -> None:
        write_bundle(folder)
        (folder / path).write_bytes(content())
        relist(folder)

    return make


def with_text(change: Callable[[str], str]) -> Maker:
    """Make a bundle whose document's text was changed."""

    def make(folder: Path) -> None:
        path = write_bundle(folder) / "infer_config.json"
        path.write_text(change(path.read_text("utf-8")), "utf-8")

    return make


def set_path(path: str, field_name: str = "files") -> Maker:
    """Make a bundle where one of the fields that hold a path says another."""

    def change(document: Document) -> None:
        golden = document["parity"]["goldens"][0]
        holder, key = {
            "files": (document["files"][0], "path"),
            "model": (document["models"]["tiny"], "file"),
            "image": (golden, "image"),
            "map": (golden, "map"),
        }[field_name]
        holder[key] = path

    return edited(change)


def set_threshold(value: object) -> Maker:
    """Make a bundle with another image threshold."""

    def change(document: Document) -> None:
        document["categories"]["part"]["thresholds"]["image"] = value

    return edited(change)


def move_out(path: str, come_back: Callable[[Path, Path], object]) -> Any:
    """Make a bundle, take a part of it out, and let it come back otherwise."""

    def change(folder: Path) -> None:
        away = folder.parent / "elsewhere"
        (folder / path).rename(away)
        come_back(folder / path, away)

    return changed(change)


def symlink(path: str) -> Maker:
    """Make a bundle with a symbolic link in a part's place."""
    return move_out(path, lambda here, away: here.symlink_to(away))


def fifo(path: str) -> Maker:
    """Make a bundle with a FIFO in a file's place."""
    return move_out(path, lambda here, _: os.mkfifo(here))


def hard_link(path: str) -> Maker:
    """Make a bundle with a file that has a second name outside."""
    return changed(lambda folder: os.link(folder / path, folder.parent / "twin"))


def sparse_model(folder: Path) -> None:
    """Make the model 3 GB long, most of it a hole."""
    with (folder / MODEL).open("r+b") as stream:
        stream.truncate(3_000_000_000)


def folder_for_model(folder: Path) -> None:
    """Put a folder in the model's place."""
    (folder / MODEL).unlink()
    (folder / MODEL).mkdir()


def add_twin(document: Document) -> None:
    """List the model a second time, in capitals."""
    document["files"].append(document["files"][0] | {"path": "models/TINY.onnx"})


# Models


def with_operator(operator: str, *attributes: bytes) -> bytes:
    """Give a model with one more operator."""
    nodes = node(operator, ["small"], ["z"], *attributes)
    return model(graph(extra_nodes=nodes))


def with_body(operator: str) -> bytes:
    """Give a model with control flow over an empty graph."""
    name = "then_branch" if operator == "If" else "body"
    body = field(5, field(1, name) + field(6, field(2, "inner")) + field(20, 5))
    return with_operator(operator, body)


def folded_expand() -> bytes:
    """Give a model whose size onnxruntime computes when the session is made."""
    data = sized("Expand", computed=False)
    parts = parsed(data)
    graph_parts = next(part.value for part in parts if part.number == 7)
    expand = next(p for p in graph_parts if any(q.value == b"Expand" for q in p.value))
    next(q for q in expand.value if q.value == b"size").value = b"same"
    at = graph_parts.index(expand)
    graph_parts[at:at] = parsed(node("Identity", ["size"], ["same"]), "graph")
    return written(parts)


def sized(operator: str, *, computed: bool) -> bytes:
    """Give a model in which one operator makes 40 GB that the score needs.

    A computed size is the batch's times a constant: it is known at run time only.
    """
    place = {"ConstantOfShape": 0, "Resize": 3}.get(operator, 1)
    sizes = [0, BOMB] if operator == "Pad" else [BOMB]
    nodes, tensors = b"", [int64s("size", sizes)]
    size = "size"
    if computed:
        of_batch = (attribute("start", 0), attribute("end", 1))
        nodes += node("Shape", ["image"], ["batch"], *of_batch)
        nodes += node("Mul", ["batch", "size"], ["sizes"])
        size = "sizes"
    one = field(1, 1) + field(2, FLOAT) + field(8, "one")
    tensors.append(one + field(9, struct.pack("<f", 1.0)))
    inputs = [*["one", "", "", ""][:place], size]
    nodes += node(operator, inputs, ["bomb"])
    nodes += node("ReduceMax", ["bomb"], ["most"], attribute("keepdims", 0))
    nodes += node("Add", ["small", "most"], ["all"])
    extra = b"".join(field(5, tensor) for tensor in tensors)
    return model(graph(extra_nodes=nodes, extra=extra, last="all"))


def external_model() -> bytes:
    """Give a model with a tensor in another file."""
    where = field(13, field(1, "location") + field(2, "../secret"))
    tensor = field(1, 4) + field(2, FLOAT) + field(8, "w") + where + field(14, 1)
    return model(graph(extra=field(5, tensor)))


def claiming_model() -> bytes:
    """Give a model with a tensor of 3 GB that is not there."""
    tensor = field(1, 750_000_000) + field(2, FLOAT) + field(8, "w")
    return model(graph(extra=field(5, tensor)))


def foreign_node() -> bytes:
    """Give a model with a node of a domain of its own."""
    nodes = node("Evil", ["small"], ["z"], field(7, "com.example"))
    return model(graph(extra_nodes=nodes))


def other_inputs() -> bytes:
    """Give a model that also wants a mask."""
    mask = tensor_info("mask", 2, ("batch", "height", "width"))
    return model(graph(image_info=IMAGE_INFO, extra=field(11, mask)))


ORT_FORMAT: Final = struct.pack("<I", 24) + b"ORTM" + bytes(200)


# Goldens


def png_bomb(side: int = 12_000) -> bytes:
    """Give a PNG of 432 MB of pixels in about a thousandth of its size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    # A hundred rows of zeros, packed once and repeated; the checksum of n zeros.
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    row_bytes = 1 + 3 * side
    block = packer.compress(bytes(100 * row_bytes)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = struct.pack(">I", (row_bytes * side % 65521) << 16 | 1)
    rows = b"\x78\x9c" + block * (side // 100) + b"\x03\x00" + checksum
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


def allowed_bomb(folder: Path) -> None:
    """Make a bundle whose own rules allow the PNG bomb."""
    write_bundle(folder, edit=lambda d: d["input"].update(max_pixels=2_000_000_000))
    (folder / "golden/000.png").write_bytes(png_bomb())
    relist(folder)


def object_map() -> bytes:
    """Give an .npy of Python objects, which numpy would unpickle."""
    stream = io.BytesIO()
    np.save(stream, np.full(MAP_SIZE, None), allow_pickle=True)
    return stream.getvalue()


def huge_header() -> bytes:
    """Give an .npy whose header is 60 kB of brackets."""
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(" * 60_000
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def deep_json(_: str) -> str:
    """Give 10 MB of brackets."""
    return "[" * 5_000_000 + "]" * 5_000_000


def twice(text: str) -> str:
    """Say the kind a second time."""
    return text.replace('"kind":', '"kind": "bundle", "kind":', 1)
