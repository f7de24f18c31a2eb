"""`calibrate` and `infer --thresholds` on a device: files, words, exit codes."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import edit_document, graph, grey, model, save_picture, write_bundle

from pyimgano_runtime.calibrate_command import picture_groups
from pyimgano_runtime.calibration import threshold_above
from pyimgano_runtime.cli import main
from pyimgano_runtime.fingerprint import fingerprint
from pyimgano_runtime.thresholds_file import read_thresholds_file

EPOCH = "1771891200"  # 2026-02-24


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", threshold=15.0)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Nineteen normals of grey 1 to 19, in two sub-folders and beside them."""
    for level in range(1, 20):
        folder = {0: "a", 1: "b"}.get(level % 3, "")
        save_picture(tmp_path / "good" / folder / f"{level:02d}.png", grey(level))
    return tmp_path / "good"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "thresholds.json"


def calibrate(bundle: Path, folder: Path, output: Path, *more: str) -> int:
    return main(["calibrate", str(bundle), str(folder), "--output", str(output), *more])


def usage_error(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(str(caught.value.code))


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_thresholds_are_conformal_on_the_folder(
    bundle: Path, good: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    assert calibrate(bundle, good, output, "--target-false-alarm-rate", "0.1") == 0
    file = read_thresholds_file(output)
    own = file.categories["part"]
    assert own.thresholds.image == threshold_above(18.0)  # the ceil(20 x 0.9)-th
    assert own.thresholds.pixel == threshold_above(18.0, 1e-4)
    assert own.calibration.image_scores == tuple(map(float, range(1, 20)))
    image = own.thresholds.provenance["image"]
    assert (image.method, image.source, image.approximate) == (
        *("conformal", "device"),
        False,
    )
    assert (image.requested_false_alarm_rate, image.used_false_alarm_rate) == (0.1, 0.1)
    assert (image.n_images, image.n_groups) == (19, 19)
    assert image.set_by == "pyimgano-runtime calibrate"
    assert image.set_at == "2026-02-24T00:00:00Z"
    assert image.bounds is not None
    assert image.bounds.images_above == 1
    assert file.bundle.name == "tiny"


def test_the_fingerprint_is_over_names_and_bytes(
    bundle: Path, good: Path, output: Path
) -> None:
    calibrate(bundle, good, output)
    digests = {
        path.relative_to(good).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in good.rglob("*.png")
    }
    own = read_thresholds_file(output).categories["part"]
    assert own.thresholds.provenance["image"].fingerprint == fingerprint(digests)


def test_the_table_says_old_and_new_and_how_the_normals_meet_the_old(
    bundle: Path, good: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrate(bundle, good, output, "--target-false-alarm-rate", "0.1")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "bundle    tiny 1, category part"
    assert lines[1] == "normals   19 pictures in 19 groups"
    assert lines[2].startswith("promised  at most 10.00% false alarms")
    # Of 15 to 19, 5 of 19: Clopper-Pearson.
    assert lines[4].split("  ", 1)[0] == "image"
    assert (
        "15        18.0002  5 of 19 (26.32%; 95 % bounds 9.15% to 51.20%)" in lines[4]
    )
    assert lines[5].split() == ["pixel", "none", "18.0018"]
    assert f"infer --thresholds {output}" in lines[-1]


def test_json_says_the_same(
    bundle: Path, good: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(bundle, good, output, "--json") == 0
    payload = json.loads(capsys.readouterr().out)
    assert payload["old"] == {"image": 15.0, "pixel": None}
    assert payload["above_old"]["image"]["images_above"] == 5
    image = read_thresholds_file(output).categories["part"].thresholds.image
    assert payload["new"]["image"] == image


def test_infer_takes_the_file_and_rows_name_it(
    bundle: Path, good: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrate(bundle, good, output, "--target-false-alarm-rate", "0.1")
    capsys.readouterr()
    arguments = ["--bundle", str(bundle), "--thresholds", str(output), str(good)]
    assert main(["infer", *arguments]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert {row["threshold_source"] for row in rows} == {"thresholds.json: conformal"}
    assert sum(row["label"] == "anomaly" for row in rows) == 1
    assert {row["p_value"] for row in rows} == {(1 + n) / 20 for n in range(1, 20)}


def test_the_rate_is_the_one_that_the_bundle_was_asked_for(
    bundle: Path, good: Path, output: Path
) -> None:
    image = ("categories", "part", "thresholds", "provenance", "image")

    def edit(payload: dict[str, Any]) -> None:
        for key in image:
            payload = payload[key]
        payload["requested_false_alarm_rate"] = 0.25

    edit_document(bundle, edit)
    calibrate(bundle, good, output)
    own = read_thresholds_file(output).categories["part"]
    assert own.thresholds.provenance["image"].requested_false_alarm_rate == 0.25


def test_normals_that_break_the_bundles_promise_are_named(
    bundle: Path, good: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["categories"]["part"]["thresholds"]["image"] = 0.0

    calibrate(bundle, good, output)
    assert "FALSE_ALARMS_ABOVE_PROMISE" not in capsys.readouterr().err
    edit_document(bundle, edit)
    calibrate(bundle, good, output, "--force")
    err = capsys.readouterr().err
    assert (
        "FALSE_ALARMS_ABOVE_PROMISE: the bundle's own threshold promises at most "
        "20.00% false alarms, but 19 of these 19 normals reach it (95 % bounds "
        "82.35% to 100.00%)"
    ) in err


def test_too_few_normals_are_warned_of(
    bundle: Path, good: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(bundle, good, output) == 0  # the bundle asks for 1 %
    err = capsys.readouterr().err
    assert "warning: CALIBRATION_SMALL_N: 19 held-out normals can promise no" in err
    assert "takes 99 normals" in err


def test_one_picture_is_enough_for_a_promise_of_one_half(
    bundle: Path, tmp_path: Path, output: Path
) -> None:
    save_picture(tmp_path / "one" / "a.png", grey(40))
    assert calibrate(bundle, tmp_path / "one", output) == 0
    own = read_thresholds_file(output).categories["part"]
    assert own.thresholds.provenance["image"].used_false_alarm_rate == 0.5


def test_pictures_that_cannot_be_read_are_all_listed_and_nothing_is_written(
    bundle: Path, good: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (good / "x.png").write_bytes(b"no picture")
    (good / "a" / "y.png").write_bytes(b"")
    assert calibrate(bundle, good, output) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("failed: ") == 2
    assert "x.png" in err
    assert "y.png" in err
    assert "2 pictures could not be scored, so nothing was written" in err
    assert not output.exists()


def test_copies_are_left_out_and_warned_of(
    bundle: Path, good: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (good / "z.png").write_bytes((good / "02.png").read_bytes())
    assert calibrate(bundle, good, output) == 0
    err = capsys.readouterr().err
    assert "CALIBRATION_DUPLICATES: 1 pictures are byte-identical copies of" in err
    assert "(02.png = z.png)" in err
    own = read_thresholds_file(output).categories["part"]
    image = own.thresholds.provenance["image"]
    assert (image.n_images, image.n_groups) == (19, 19)
    assert image.warnings == ("CALIBRATION_SMALL_N", "CALIBRATION_DUPLICATES")
    assert own.calibration.image_scores == tuple(map(float, range(1, 20)))


def test_copies_of_one_picture_promise_no_more_than_one_picture(
    bundle: Path, tmp_path: Path, output: Path
) -> None:
    for number in range(99):
        save_picture(tmp_path / "same" / f"{number}.png", grey(40))
    assert calibrate(bundle, tmp_path / "same", output) == 0
    own = read_thresholds_file(output).categories["part"]
    image = own.thresholds.provenance["image"]
    assert (image.n_images, image.used_false_alarm_rate) == (1, 0.5)


def test_a_promise_on_groups_is_an_about(
    bundle: Path, good: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(bundle, good, output, "--group-by-folder") == 0
    out, err = capsys.readouterr()
    assert "promised  about 5.00% false alarms" in out
    assert "CALIBRATION_GROUPED: 19 pictures show 8 parts" in err
    own = read_thresholds_file(output).categories["part"].thresholds
    for provenance in own.provenance.values():
        assert provenance.approximate
        assert "CALIBRATION_GROUPED" in provenance.warnings


def set_by_pixels(document: dict[str, Any], quantile: Any) -> None:
    thresholds = document["categories"]["part"]["thresholds"]
    thresholds["pixel"] = 20.0
    parameters = {"statistic": "pixels of normal maps", "quantile": quantile}
    thresholds["provenance"]["pixel"] = thresholds["provenance"]["image"] | {
        "method": "quantile",
        "parameters": parameters | {"pixels": 100},
    }


def test_a_pixel_threshold_of_all_pixels_stays_one(
    bundle: Path, good: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (good / "z.png").write_bytes((good / "02.png").read_bytes())
    edit_document(bundle, lambda document: set_by_pixels(document, 0.5))
    assert calibrate(bundle, good, output) == 0
    own = read_thresholds_file(output).categories["part"].thresholds
    pixel = own.provenance["pixel"]
    # Maps of one grey level each, 1 to 19, of 4 x 6 pixels.
    assert own.pixel == threshold_above(10.0, 1e-4)
    assert pixel.method == "quantile"
    assert pixel.parameters == {
        "statistic": "pixels of normal maps",
        "quantile": 0.5,
        "pixels": 19 * 24,
    }
    assert pixel.used_false_alarm_rate is None


@pytest.mark.parametrize("quantile", [None, 0, 1, 2.0, "0.5", True, [0.5]])
def test_a_bundles_pixel_quantile_that_is_none_is_refused(
    bundle: Path,
    good: Path,
    output: Path,
    quantile: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    edit_document(bundle, lambda document: set_by_pixels(document, quantile))
    assert calibrate(bundle, good, output) == 3
    err = capsys.readouterr().err
    assert "provenance.pixel.parameters.quantile: found" in err
    assert not output.exists()


def test_pictures_of_a_sub_folder_are_one_group_where_asked_for(
    bundle: Path, good: Path, output: Path
) -> None:
    assert calibrate(bundle, good, output, "--group-by-folder") == 0
    image = read_thresholds_file(output).categories["part"].thresholds.provenance
    assert image["image"].n_groups == 2 + 6  # a, b and six pictures beside them


@pytest.mark.parametrize(
    ("digests", "by_folder", "n_groups"),
    [
        ({"a": "1", "b": "2", "c": "1"}, False, 2),
        ({"x/a": "1", "x/b": "2", "y/c": "3"}, False, 3),
        ({"x/a": "1", "x/b": "2", "y/c": "3"}, True, 2),
        ({"x/a": "1", "x/b": "2", "y/c": "2", "y/d": "4"}, True, 1),
        ({"x/a": "1", "y/b": "2", "z/c": "3", "y/d": "3", "x/e": "2"}, True, 1),
        ({"a": "1", "b": "2"}, True, 2),
    ],
)
def test_groups_join_what_shows_one_part(
    digests: dict[str, str], by_folder: bool, n_groups: int
) -> None:
    groups = picture_groups(digests, by_folder=by_folder)
    assert len(groups) == len(digests)
    assert len(set(groups)) == n_groups


def test_an_existing_file_is_kept_without_force(
    bundle: Path, good: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(bundle, good, output) == 0
    before = output.read_bytes()
    rate = ("--target-false-alarm-rate", "0.2")
    assert calibrate(bundle, good, output, *rate) == 2
    assert "--force" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert calibrate(bundle, good, output, *rate, "--force") == 0
    assert output.read_bytes() != before


def test_force_replaces_no_file_of_another_kind(
    bundle: Path, good: Path, output: Path
) -> None:
    output.write_text("my diary")
    assert calibrate(bundle, good, output, "--force") == 2
    assert output.read_text() == "my diary"


def test_the_bundle_itself_is_never_written_to(
    bundle: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(bundle, good, bundle / "thresholds.json") == 2
    assert "lies in the bundle" in capsys.readouterr().err
    assert not (bundle / "thresholds.json").exists()


@pytest.mark.parametrize("rate", ["0", "1", "nan", "inf", "-0.1", "1e-9", "x", ""])
def test_a_rate_that_makes_no_sense_is_a_usage_error(
    bundle: Path, good: Path, output: Path, rate: str
) -> None:
    arguments = ("calibrate", bundle, good, "--output", output)
    assert usage_error(*arguments, f"--target-false-alarm-rate={rate}") == 2
    assert not output.exists()


def test_a_folder_without_pictures_or_no_folder_is_refused(
    bundle: Path, good: Path, tmp_path: Path, output: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert calibrate(bundle, tmp_path / "empty", output) == 2
    assert calibrate(bundle, tmp_path / "nowhere", output) == 2
    assert calibrate(bundle, good / "02.png", output) == 2
    # Path("") would be the working directory.
    assert main(["calibrate", str(bundle), "", "--output", str(output)]) == 2
    assert not output.exists()


def test_of_several_categories_one_must_be_named(
    tmp_path: Path, good: Path, output: Path
) -> None:
    bundle = write_bundle(tmp_path / "two", categories=("a", "b"))
    assert calibrate(bundle, good, output) == 2
    assert calibrate(bundle, good, output, "--category", "b") == 0
    assert set(read_thresholds_file(output).categories) == {"b"}


def test_a_model_without_a_map_gets_no_pixel_threshold(
    tmp_path: Path, good: Path, output: Path
) -> None:
    bundle = write_bundle(tmp_path / "score", with_map=False)
    assert calibrate(bundle, good, output) == 0
    assert read_thresholds_file(output).categories["part"].thresholds.pixel is None


@pytest.mark.parametrize("epoch", ["x", "-1", "1e9", "9" * 12])
def test_a_source_date_that_is_none_is_refused(
    bundle: Path,
    good: Path,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    epoch: str,
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    assert calibrate(bundle, good, output) == 2
    assert not output.exists()


def test_infer_refuses_a_file_of_another_model(
    bundle: Path,
    good: Path,
    output: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calibrate(bundle, good, output)
    other = write_bundle(tmp_path / "other", model_bytes=model(graph(scale=2.0)))
    arguments = ["--bundle", str(other), "--thresholds", str(output), str(good)]
    assert main(["infer", *arguments]) == 2
    assert "scores are not comparable" in capsys.readouterr().err


def test_infer_refuses_a_damaged_file_before_it_scores(
    bundle: Path, good: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output.write_text("{")
    arguments = ["--bundle", str(bundle), "--thresholds", str(output), str(good)]
    assert main(["infer", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "thresholds.json: line 1" in err


def test_infer_takes_one_source_of_thresholds(
    bundle: Path, good: Path, output: Path
) -> None:
    arguments = ("--threshold", "1", "--thresholds", output)
    assert usage_error("infer", "--bundle", bundle, *arguments, good) == 2
