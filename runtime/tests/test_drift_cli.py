"""`infer --stats-every` and `--drift-report`: lines, page, refusals."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import edit_document, write_bundle
from watched_bundle import save_pictures, write_watched_bundle

from pyimgano_runtime import Predictor
from pyimgano_runtime.cli import main
from pyimgano_runtime.drift_watch import DriftWatch

NAMES = ["score", "brightness", "sharpness"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, forty pictures like its own, forty brighter ones."""
    folder = tmp_path_factory.mktemp("line")
    write_watched_bundle(folder / "bundle")
    save_pictures(folder / "same", 40)
    save_pictures(folder / "bright", 40, brighter=25)
    return folder


def infer(home: Path, name: str, *options: str) -> int:
    command = ["infer", "--bundle", str(home / "bundle"), *options]
    return main([*command, str(home / name)])


def stats_of(err: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in err.splitlines() if line.startswith("{")]


def test_a_line_of_json_comes_every_so_many_pictures(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(home, "same", "--stats-every", "16") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 40
    first, second = stats_of(err)
    assert (first["pictures"], second["pictures"]) == (16, 32)
    assert (first["kind"], first["category"]) == ("drift", "part")
    assert (first["verdict"], second["verdict"]) == ("not judged", "no drift")
    assert list(second["statistics"]) == NAMES
    assert second["alarms"] == {}
    assert (
        second["statistics"]["score"]["ks"] < second["statistics"]["score"]["ks_limit"]
    )
    assert second["statistics"]["brightness"]["ks"] is None


def test_brighter_pictures_are_told(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(home, "bright", "--stats-every", "40") == 0
    (told,) = stats_of(capsys.readouterr().err)
    assert told["verdict"] == "drift"
    assert "shift" in told["alarms"]["brightness"]
    assert told["statistics"]["brightness"]["mean"] == pytest.approx(105, abs=3)


def test_the_rows_are_the_same_with_and_without(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    infer(home, "same")
    plain = capsys.readouterr().out
    infer(
        home, "same", "--stats-every", "7", "--drift-report", str(tmp_path / "d.html")
    )
    watched = capsys.readouterr().out
    without_times = [re.sub(r'"ms": \{.*?\}', "", text) for text in (plain, watched)]
    assert without_times[0] == without_times[1]


def test_the_page_says_the_verdict_and_loads_nothing(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "drift.html"
    assert infer(home, "bright", "--drift-report", str(page)) == 0
    text = page.read_text("utf-8")
    assert "The pictures are brighter than in training" in text
    assert "Look at the lamp" in text
    assert text.count("<svg") == 3
    assert not re.findall(r"(?:src|href)=\"(?!data:)|@import|url\(|<script", text)
    assert "drift: The pictures are brighter" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["drift.html"]


def test_a_name_in_the_page_is_text_not_markup(tmp_path: Path) -> None:
    bundle = write_watched_bundle(tmp_path / "bundle", categories=("<b>&lid",))
    save_pictures(tmp_path / "same", 3)
    page = tmp_path / "d.html"
    command = ["infer", "--bundle", str(bundle), "--drift-report", str(page)]
    assert main([*command, str(tmp_path / "same")]) == 0
    text = page.read_text("utf-8")
    assert "Drift of &lt;b&gt;&amp;lid" in text
    assert "<b>&lid" not in text


def test_an_existing_page_is_replaced_by_force_only(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "drift.html"
    assert infer(home, "same", "--drift-report", str(page)) == 0
    before = page.read_text("utf-8")
    capsys.readouterr()
    assert infer(home, "bright", "--drift-report", str(page)) == 2
    out, err = capsys.readouterr()
    assert (out, page.read_text("utf-8")) == ("", before)
    assert "pass --force" in err
    assert infer(home, "bright", "--drift-report", str(page), "--force") == 0
    assert page.read_text("utf-8") != before


@pytest.mark.parametrize("name", ["bundle/d.html", "nowhere/d.html", "rows", "same"])
def test_a_page_is_refused_where_it_would_do_harm(
    home: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = home / "rows"
    rows.write_text("mine")
    options = ("--drift-report", str(home / name), "--force")
    assert infer(home, "same", *options) == 2
    assert str(home / name) in capsys.readouterr().err
    assert rows.read_text() == "mine"
    assert not (home / "bundle" / "d.html").exists()


def test_rows_and_page_do_not_share_a_file(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = str(tmp_path / "both")
    assert infer(home, "same", "--drift-report", both, "--output", both) == 2
    assert "is the file of --output too" in capsys.readouterr().err


def test_a_bundle_without_a_reference_compares_scores_and_says_so(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, page = write_watched_bundle(tmp_path / "old"), tmp_path / "d.html"
    edit_document(bundle, lambda d: d["categories"]["part"].pop("reference"))
    command = ["infer", "--bundle", str(bundle), "--stats-every", "40"]
    assert main([*command, "--drift-report", str(page), str(home / "bright")]) == 0
    err = capsys.readouterr().err
    assert err.count("holds no reference of pictures") == 1
    (told,) = stats_of(err)
    assert list(told["statistics"]) == ["score"]
    assert told["verdict"] == "drift"
    assert "holds no reference of pictures" in page.read_text("utf-8")


def test_a_bundle_that_knows_nothing_says_so(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, page = write_bundle(tmp_path / "old"), tmp_path / "d.html"

    def forget(document: dict[str, Any]) -> None:
        calibration = {"image_scores": [], "n_images": 0}
        document["categories"]["part"]["calibration"] = calibration

    edit_document(bundle, forget)
    command = ["infer", "--bundle", str(bundle), "--drift-report", str(page)]
    assert main([*command, str(home / "same")]) == 0
    assert "nothing to compare with" in capsys.readouterr().err
    assert "nothing to compare with" in page.read_text("utf-8")


def test_scores_are_compared_with_those_of_a_device_calibration(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thresholds = str(tmp_path / "thresholds.json")
    calibrate = ["calibrate", str(home / "bundle"), str(home / "bright")]
    assert main([*calibrate, "--output", thresholds]) == 0
    options = ("--stats-every", "40", "--thresholds", thresholds)
    capsys.readouterr()
    assert infer(home, "bright", *options) == 0
    (told,) = stats_of(capsys.readouterr().err)
    assert told["statistics"]["score"]["shift"] == pytest.approx(0, abs=1e-4)
    assert list(told["alarms"]) == ["brightness"]  # the camera's training stays


@pytest.mark.parametrize("given", ["0", "-1", "x", "1.5"])
def test_every_how_many_is_a_number(home: Path, given: str) -> None:
    with pytest.raises(SystemExit) as caught:
        infer(home, "same", f"--stats-every={given}")
    assert caught.value.code == 2


def test_nothing_of_it_is_imported_unless_it_was_asked_for(home: Path) -> None:
    code = (
        "import sys\nfrom pyimgano_runtime.cli import main\n"
        f"main({['infer', '--bundle', str(home / 'bundle'), str(home / 'same')]})\n"
        "parts = ('drift', 'picture_statistics')\n"
        "print([m for m in sys.modules if any(p in m for p in parts)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_another_bundle_in_use_begins_the_window_anew(home: Path) -> None:
    predictor, told = Predictor.open(home / "bundle"), []
    watch = DriftWatch(predictor, say=told.append, every=2)
    image = predictor.read(home / "same" / "0000.png")
    for _ in range(2):
        watch.add(image, predictor.predict(image))
    predictor.settings = replace(predictor.settings, reference=None)
    for _ in range(2):
        watch.add(image, predictor.predict(image))
    first, note, second = told
    assert list(json.loads(first)["statistics"]) == NAMES
    assert "holds no reference of pictures" in note
    assert json.loads(second)["window"] == 2
    assert list(json.loads(second)["statistics"]) == ["score"]
