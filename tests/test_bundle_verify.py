"""`pyimgano bundle verify`: every finding at once, exit 0, 1 or 2."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from bundle_copies import copy_of, edit_document, edit_json, remove_goldens
from conftest import CommandResult, Exported
from pyimgano.detectors import load_detector, save_detector
from pyimgano.workbench.artifacts import open_run
from pyimgano_runtime.bundle import open_bundle

Run = Callable[..., CommandResult]
Export = Callable[[str], Exported]


@pytest.fixture
def made(exported: Export) -> Exported:
    return exported("pixel_stats")


@pytest.fixture
def bundle(made: Exported, tmp_path: Path) -> Path:
    """Give a copy of a bundle that a test may spoil."""
    return copy_of(made.bundle, tmp_path / "b")


@pytest.fixture
def run(made: Exported, tmp_path: Path) -> Path:
    """Give a copy of the run of that bundle."""
    return copy_of(made.run, tmp_path / "r")


@pytest.fixture
def verify(run_cli: Run) -> Run:
    def run(*arguments: str | Path) -> CommandResult:
        return run_cli("bundle", "verify", *arguments)

    return run


def lines(done: CommandResult, verdict: str) -> list[str]:
    """The findings of one verdict."""
    return [line for line in done.stdout.splitlines() if line.startswith(verdict)]


# --- a good bundle ------------------------------------------------------------------


def test_a_bundle_as_it_was_exported_is_verified(made: Exported, verify: Run) -> None:
    done = verify(made.bundle)
    assert done.code == 0, done.stdout
    whats = [line.split()[1] for line in lines(done, "ok")]
    assert whats == ["document", "files", "graph", "goldens"]
    assert "bracket: 4 of 4 agree in onnxruntime" in done.stdout
    assert "not compared with the trained checkpoint" in done.stdout
    assert "thresholds in infer_config.json may be edited" in done.stdout
    assert done.stdout.endswith("verdict: verified\n")
    assert done.stderr == ""


def test_the_sha256_of_the_document_is_printed(made: Exported, verify: Run) -> None:
    digest = open_bundle(made.bundle).sha256
    assert f"sha256 of infer_config.json: {digest}\n" in verify(made.bundle).stdout


def test_with_its_run_checkpoint_and_bundle_score_the_held_out_pictures(
    made: Exported, verify: Run
) -> None:
    done = verify(made.bundle, "--run", made.run)
    assert done.code == 0, done.stdout
    parity = [line for line in lines(done, "ok") if " parity " in line]
    assert "bracket: 4 golden pictures" in parity[0]
    assert "bracket: 12 test+val pictures" in parity[1]
    assert "no label flips" in parity[1]


def test_fewer_held_out_pictures_can_be_asked_for(made: Exported, verify: Run) -> None:
    done = verify(made.bundle, "--run", made.run, "--parity-images", "3")
    assert "bracket: 3 test+val pictures" in done.stdout


def test_a_bundle_under_a_name_with_spaces_and_umlauts_is_verified(
    made: Exported, tmp_path: Path, verify: Run
) -> None:
    place = copy_of(made.bundle, tmp_path / "Größe 7 (检查)")
    assert verify(place, "--run", made.run).code == 0


def test_a_threshold_from_few_pictures_is_a_warning(
    made: Exported, verify: Run
) -> None:
    (line,) = lines(verify(made.bundle), "warning")
    assert line.startswith("warning  threshold  bracket: CALIBRATION_SMALL_N")


def test_json_carries_the_findings_and_the_numbers(made: Exported, verify: Run) -> None:
    done = verify(made.bundle, "--run", made.run, "--json")
    report = json.loads(done.stdout)
    assert (done.code, report["exit_code"], report["ok"]) == (0, 0, True)
    assert report["schema_version"] == "1.0"
    assert report["sha256"] == open_bundle(made.bundle).sha256
    assert {f["verdict"] for f in report["findings"]} == {"ok", "warning"}
    assert len(report["goldens"]["results"]) == 4
    assert [(p["images"], p["n_images"]) for p in report["parity"]] == [
        *(("golden", 4), ("test+val", 12)),
    ]


# --- refused: exit 2 ----------------------------------------------------------------


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, verify: Run) -> None:
    done = verify(tmp_path)
    assert done.code == 2
    assert "has no infer_config.json" in lines(done, "FAILED")[0]


def test_a_document_with_an_unknown_key_is_refused(bundle: Path, verify: Run) -> None:
    edit_document(bundle, lambda document: document.update(extra=1))
    done = verify(bundle)
    assert done.code == 2
    assert "extra: unknown key" in lines(done, "FAILED")[0]


def test_a_file_that_is_not_listed_is_refused(bundle: Path, verify: Run) -> None:
    (bundle / "golden" / "mine.txt").write_text("x")
    done = verify(bundle)
    assert done.code == 2
    (line,) = lines(done, "FAILED")
    assert line.endswith("golden/mine.txt: is not in the list of files; remove it")


def test_a_changed_byte_is_refused(bundle: Path, verify: Run) -> None:
    card = bundle / "MODEL_CARD.md"
    data = bytearray(card.read_bytes())
    data[0] ^= 1
    card.write_bytes(data)
    done = verify(bundle)
    assert done.code == 2
    (line,) = lines(done, "FAILED")
    assert "MODEL_CARD.md: sha256 is" in line


def test_all_findings_are_told_at_once(bundle: Path, verify: Run) -> None:
    (bundle / "more.txt").write_text("x")
    (bundle / "MODEL_CARD.md").write_text("x")
    (bundle / "golden" / "001.png").unlink()
    done = verify(bundle, "--expect-sha256", "0" * 64)
    assert done.code == 2
    assert len(lines(done, "FAILED")) == 4
    assert "not verified, 4 findings FAILED (sha256, file)" in done.stderr


def test_a_model_of_changed_bytes_is_never_run(bundle: Path, verify: Run) -> None:
    model = next((bundle / "models").iterdir())
    model.write_bytes(b"x" * model.stat().st_size)
    done = verify(bundle)
    assert done.code == 2
    assert " graph " not in done.stdout
    assert "not compared: what is refused above was never run" in done.stdout


def test_the_expected_sha256_is_held_against_the_document(
    made: Exported, verify: Run
) -> None:
    digest = open_bundle(made.bundle).sha256
    assert verify(made.bundle, "--expect-sha256", digest.upper()).code == 0
    done = verify(made.bundle, "--expect-sha256", "0" * 64)
    assert done.code == 2
    assert f"infer_config.json has {digest}, expected {'0' * 64}" in done.stdout


def test_a_model_of_another_release_is_never_run(made: Exported, verify: Run) -> None:
    done = verify(made.bundle, "--run", made.run, "--expect-sha256", "0" * 64)
    assert done.code == 2
    (line,) = [s for s in done.stdout.splitlines() if "were not run" in s]
    assert "graphs, goldens and parity were not run: the sha256 was refused" in line
    whats = {line.split()[1] for line in lines(done, "ok")}
    assert whats == {"document", "files"}


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "0" * 64 + "\n"])
def test_a_wrong_expected_sha256_is_a_usage_error(
    text: str, made: Exported, verify: Run
) -> None:
    done = verify(made.bundle, "--expect-sha256", text)
    assert done.code == 2
    assert "expected 64 hexadecimal digits" in done.stderr


def test_a_listed_model_that_breaks_the_operator_rule_is_refused(
    bundle: Path, verify: Run
) -> None:
    path = next((bundle / "models").iterdir())
    model = onnx.load(path)
    model.graph.node.append(
        onnx.helper.make_node("RandomNormal", [], ["noise"], shape=[1])
    )
    replace_model(bundle, path, model.SerializeToString())
    done = verify(bundle)
    assert done.code == 2
    (line,) = lines(done, "FAILED")
    assert line.startswith("FAILED   graph")
    assert "RandomNormal" in line


def test_a_listed_model_that_onnx_finds_invalid_is_refused(
    bundle: Path, verify: Run
) -> None:
    path = next((bundle / "models").iterdir())
    model = onnx.load(path)
    model.graph.node[-1].input[0] = "nobody"
    replace_model(bundle, path, model.SerializeToString())
    done = verify(bundle)
    assert done.code == 2
    assert "onnx finds it invalid" in lines(done, "FAILED")[0]


def test_a_listed_model_that_protobuf_cannot_parse_is_refused(
    bundle: Path, verify: Run
) -> None:
    path = next((bundle / "models").iterdir())
    model = onnx.load(path)
    model.graph.name = "gg"
    data = model.SerializeToString()
    assert data.count(b"\x12\x02gg") == 1
    # The name becomes a quantization_annotation (field 14), which "gg" is none of.
    replace_model(bundle, path, data.replace(b"\x12\x02gg", b"\x72\x02gg"))
    done = verify(bundle)
    assert done.code == 2
    assert "cannot be parsed by onnx (Error parsing" in lines(done, "FAILED")[0]


def replace_model(bundle: Path, path: Path, data: bytes) -> None:
    """Write another model and list it with its own size and sha256."""
    path.write_bytes(data)

    def change(document: dict[str, Any]) -> None:
        entry = next(e for e in document["files"] if e["role"] == "model")
        entry["size"], entry["sha256"] = len(data), hashlib.sha256(data).hexdigest()

    edit_document(bundle, change)


def test_loosened_tolerances_are_refused(bundle: Path, verify: Run) -> None:
    edit_document(
        bundle, lambda document: document["parity"]["tolerances"].update(score_rel=1.0)
    )
    done = verify(bundle)
    assert done.code == 2
    assert "parity.tolerances.score_rel is 1, expected at most 1e-05" in done.stdout


def test_a_flip_that_the_export_recorded_is_refused(bundle: Path, verify: Run) -> None:
    def change(document: dict[str, Any]) -> None:
        document["parity"]["categories"]["bracket"]["label_flips"] = 2

    edit_document(bundle, change)
    done = verify(bundle)
    assert done.code == 2
    assert "parity.label_flips is 2, expected 0" in lines(done, "FAILED")[0]


def test_a_recorded_flip_at_the_threshold_is_a_warning(
    bundle: Path, verify: Run
) -> None:
    def change(document: dict[str, Any]) -> None:
        document["parity"]["categories"]["bracket"] |= {
            "label_flips": 1,
            "min_threshold_distance": 1e-7,
        }

    edit_document(bundle, change)
    done = verify(bundle)
    assert done.code == 0
    assert any("rounding decides" in line for line in lines(done, "warning"))


def test_no_damage_of_a_model_ends_in_a_traceback(bundle: Path, verify: Run) -> None:
    path = next((bundle / "models").iterdir())
    for place in range(40, 4000, 97):
        data = bytearray(path.read_bytes())
        data[place] ^= 0xFF
        replace_model(bundle, path, bytes(data))
        assert verify(bundle).code in (0, 1, 2)


def test_without_goldens_and_run_nothing_is_proven(bundle: Path, verify: Run) -> None:
    remove_goldens(bundle)
    done = verify(bundle)
    assert done.code == 2
    (line,) = lines(done, "FAILED")
    assert "nothing is proven; name a run (--run)" in line


def test_without_goldens_the_pictures_of_the_run_are_a_proof(
    bundle: Path, made: Exported, verify: Run
) -> None:
    remove_goldens(bundle)
    done = verify(bundle, "--run", made.run)
    assert done.code == 0
    assert "no device can prove this model" in lines(done, "warning")[-1]


# --- a disagreement: exit 1 ---------------------------------------------------------


def test_a_golden_that_disagrees_fails(bundle: Path, verify: Run) -> None:
    def change(document: dict[str, Any]) -> None:
        document["parity"]["goldens"][1]["score"] *= 1.001

    edit_document(bundle, change)
    done = verify(bundle)
    assert done.code == 1
    (line,) = lines(done, "FAILED")
    assert "bracket: golden/001.png scores" in line
    assert "(relative difference 1.0e-03" in line
    assert "3 of 4 agree" in lines(done, "ok")[-1]


def test_a_refusal_outweighs_a_disagreement(bundle: Path, verify: Run) -> None:
    def change(document: dict[str, Any]) -> None:
        document["parity"]["goldens"][1]["score"] *= 1.001
        document["parity"]["tolerances"]["score_rel"] = 1e-4

    edit_document(bundle, change)
    done = verify(bundle)
    assert done.code == 2
    assert [line.split()[1] for line in lines(done, "FAILED")] == [
        *("tolerances", "goldens"),
    ]


def test_a_checkpoint_that_scores_otherwise_fails(
    bundle: Path, run: Path, verify: Run
) -> None:
    path = open_run(run).checkpoint("bracket")
    detector = load_detector(path)
    for tensor in detector.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1.01)
    save_detector(detector, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_json(
        run / "report.json",
        lambda report: report["categories"]["bracket"].update(checkpoint_sha256=digest),
    )
    done = verify(bundle, "--run", run)
    assert done.code == 1
    golden, held_out = lines(done, "FAILED")
    assert "bracket: 4 golden pictures: scores differ by" in golden
    assert "bracket: 12 test+val pictures: scores differ by" in held_out


# --- the run ------------------------------------------------------------------------


def test_another_run_is_refused_and_says_what_differs(
    exported: Export, made: Exported, verify: Run
) -> None:
    done = verify(made.bundle, "--run", exported("padim").run)
    assert done.code == 2
    (line,) = lines(done, "FAILED")
    assert "bracket was exported from another run than" in line
    assert "(another detector, other hyper-parameters, another image thr" in line


def test_a_category_that_the_run_does_not_have_is_refused(
    bundle: Path, run: Path, verify: Run
) -> None:
    def rename(report: dict[str, Any]) -> None:
        report["categories"]["washer"] = report["categories"].pop("bracket")

    edit_json(run / "report.json", rename)
    done = verify(bundle, "--run", run)
    assert done.code == 2
    assert 'the run has no category "bracket"' in done.stdout
    assert "the bundle lacks its category washer" in done.stdout


def test_a_folder_that_is_no_run_is_refused(
    made: Exported, tmp_path: Path, verify: Run
) -> None:
    done = verify(made.bundle, "--run", tmp_path / "gone")
    assert done.code == 2
    assert "is not a finished run (no report.json)" in done.stderr


def test_a_checkpoint_that_is_gone_is_refused(
    bundle: Path, run: Path, verify: Run
) -> None:
    open_run(run).checkpoint("bracket").unlink()
    done = verify(bundle, "--run", run)
    assert done.code == 2
    (line,) = lines(done, "FAILED")
    assert "bracket/model.safetensors: " in line


def test_data_that_is_gone_leaves_the_goldens_and_a_warning(
    bundle: Path, run: Path, tmp_path: Path, verify: Run
) -> None:
    point_at(run, tmp_path / "gone.jsonl")
    done = verify(bundle, "--run", run)
    assert done.code == 0
    line = lines(done, "warning")[-1]
    assert "the run's pictures are not compared, goldens only: " in line
    assert "gone.jsonl" in line
    assert "bracket: 4 golden pictures" in done.stdout
    assert "test+val" not in done.stdout


def test_changed_pictures_leave_the_goldens_and_a_warning(
    bundle: Path, run: Path, made: Exported, tmp_path: Path, verify: Run
) -> None:
    data = copy_of(made.manifest.parent, tmp_path / "data")
    point_at(run, data / made.manifest.name)
    assert verify(bundle, "--run", run).code == 0
    row = json.loads((data / made.manifest.name).read_text().splitlines()[0])
    picture = data / row["image_path"]
    picture.write_bytes(picture.read_bytes() + b"\0")
    done = verify(bundle, "--run", run)
    assert done.code == 0
    line = lines(done, "warning")[-1]
    assert "bracket: 1 train pictures changed" in line


def test_without_data_and_goldens_nothing_is_proven(
    bundle: Path, run: Path, tmp_path: Path, verify: Run
) -> None:
    remove_goldens(bundle)
    point_at(run, tmp_path / "gone.jsonl")
    done = verify(bundle, "--run", run)
    assert done.code == 2
    assert "nothing is proven" in lines(done, "FAILED")[0]


def point_at(run: Path, manifest: Path) -> None:
    """Let the config of a run name another manifest."""
    edit_json(
        run / "config.json",
        lambda config: config["dataset"].update(manifest_path=str(manifest)),
    )
