"""Decisions, run report and gates of `infer`."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from infer_runs import lines_in, rows_of, started, told, wait_for
from tiny_bundle import grey, save_picture, write_bundle

from pyimgano_runtime.cli import main
from pyimgano_runtime.run_report import (
    NEXT_STEPS,
    SAMPLE_SIZE,
    Gates,
    RunStatistics,
    gate_lines,
)

SOURCE = Path(__file__).parents[1] / "src" / "pyimgano_runtime"


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    return str(write_bundle(tmp_path / "bundle"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Scores 40, 95, 100 and 200 at the threshold 100; one is no picture."""
    folder = tmp_path / "photos"
    for number, level in enumerate((40, 95, 100, 200)):
        save_picture(folder / f"{number}.png", grey(level))
    (folder / "9.png").write_bytes(b"no picture")
    return folder


def row(score: float, label: str = "normal") -> dict[str, Any]:
    ms = {"decode": 1.0, "infer": 2.0, "post": 0.5, "total": score}
    return {
        **{"ok": True, "score": score, "label": label, "decision": label, "ms": ms},
        **{"error": None, "input": "a.png"},
    }


def failed(code: str) -> dict[str, Any]:
    error = {"code": code, "message": "m", "stage": "decode"}
    return {"ok": False, "input": "b.png", "error": error}


def test_without_a_band_the_decision_is_the_label(
    bundle: str, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rows"
    main(["infer", "--bundle", bundle, "--output", str(output), str(photos)])
    rows = rows_of(output)
    assert [r["decision"] for r in rows] == [r["label"] for r in rows]
    assert [r["decision"] for r in rows] == [*["normal"] * 2, *["anomaly"] * 2, None]


@pytest.mark.parametrize(
    ("band", "decisions"),
    [
        ("0.04", ["normal", "normal", "review", "anomaly"]),
        ("0.05", ["normal", "review", "review", "anomaly"]),
        ("0.6", ["review", "review", "review", "anomaly"]),
        ("1", ["review"] * 4),
    ],
)
def test_scores_within_the_band_are_for_review_and_keep_their_label(
    bundle: str, photos: Path, tmp_path: Path, band: str, decisions: list[str]
) -> None:
    output = tmp_path / "rows"
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    assert main([*command, "--review-band", band]) == 4
    rows = rows_of(output)
    assert [r["decision"] for r in rows] == [*decisions, None]
    assert [r["label"] for r in rows] == ["normal"] * 2 + ["anomaly"] * 2 + [None]


@pytest.mark.parametrize("band", ["0", "-1", "nan", "wide"])
def test_a_band_that_is_none_is_a_usage_error(band: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["infer", "--bundle", "b", "--review-band", band, "x.png"])
    assert caught.value.code == 2


def test_the_report_counts_and_says_what_to_do_next(
    bundle: str, photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run_report.json"
    command = ["infer", "--bundle", bundle, "--run-report", str(path), str(photos)]
    assert main([*command, "--review-band", "0.04", "--max-error-rate", "0.5"]) == 4
    report = json.loads(path.read_text())
    assert (report["schema_version"], report["kind"]) == ("1.0", "run_report")
    assert report["ended"] == "done"
    assert report["started"] < report["finished"]
    assert report["counts"] == {
        **{"inputs": 5, "ok": 4, "failed": 1},
        **{"anomaly": 1, "normal": 2, "review": 1},
    }
    assert report["thresholds"] == {
        **{"image": 100.0, "source": "bundle: conformal", "review_band": 0.04},
        "pixel": None,
    }
    assert (report["roi"], report["regions"]) == (None, None)
    assert report["bundle"]["name"] == "tiny"
    assert (report["score"]["min"], report["score"]["max"]) == (40.0, 200.0)
    assert set(report["ms"]) == {"decode", "infer", "post", "total"}
    (error,) = report["errors"]
    assert (error["code"], error["count"]) == ("IMAGE_UNREADABLE", 1)
    assert error["next_step"] == NEXT_STEPS["IMAGE_UNREADABLE"]
    assert error["first_input"] == str(photos / "9.png")
    (gate,) = report["gates"]
    assert gate == {
        **{"gate": "max_error_rate", "limit": 0.5, "found": 0.2, "kept": True},
    }


def test_the_report_of_a_resumed_run_is_that_of_a_whole_one(
    bundle: str, photos: Path, tmp_path: Path
) -> None:
    output, path = tmp_path / "rows", tmp_path / "report.json"
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    main([*command, "--run-report", str(path)])
    whole = json.loads(path.read_text())
    lines = output.read_bytes().splitlines(keepends=True)
    (tmp_path / "rows.partial").write_bytes(b"".join(lines[:2]))
    output.unlink()
    assert main([*command, "--run-report", str(path), "--resume"]) == 4
    again = json.loads(path.read_text())
    for key in ("counts", "score", "errors", "thresholds"):
        assert again[key] == whole[key]


def test_an_existing_report_is_kept_unless_forced_and_never_a_foreign_file(
    bundle: str, photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    command = ["infer", "--bundle", bundle, "--run-report", str(path), str(photos)]
    main(command)
    before = path.read_text()
    assert main(command) == 2
    assert path.read_text() == before
    assert main([*command, "--force"]) == 4
    path.write_text("precious")
    assert main([*command, "--force"]) == 2
    assert path.read_text() == "precious"


def test_an_interrupted_run_leaves_its_report(
    bundle: str, photos: Path, tmp_path: Path
) -> None:
    output, path = tmp_path / "rows", tmp_path / "report.json"
    many = [photos / "0.png"] * 3000
    child = started(bundle, "--output", output, "--run-report", path, *many)
    wait_for(lambda: lines_in(tmp_path / "rows.partial") > 2, child)
    child.send_signal(signal.SIGINT)
    told(child)
    assert child.returncode == 130
    report = json.loads(path.read_text())
    assert report["ended"] == "interrupted"
    assert report["counts"]["inputs"] == lines_in(tmp_path / "rows.partial")


@pytest.fixture
def interrupted(
    bundle: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Give the report of a run that functions of `os` interrupt; rows go to "rows"."""

    def run(**functions: Callable[..., Any]) -> dict[str, Any]:
        path = tmp_path / "report.json"
        command = ["infer", "--bundle", bundle, "--output", str(tmp_path / "rows")]
        with monkeypatch.context() as patch:
            for name, function in functions.items():
                patch.setattr(os, name, function)
            assert main([*command, "--run-report", str(path), str(photos)]) == 130
        report: dict[str, Any] = json.loads(path.read_text())
        assert report["ended"] == "interrupted"
        return report

    return run


def test_an_interrupt_between_a_row_and_its_count_waits_for_the_count(
    interrupted: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    real_write = os.write

    def write(descriptor: int, data: bytes) -> int:
        written = real_write(descriptor, data)
        signal.raise_signal(signal.SIGINT)
        return written

    report = interrupted(write=write)
    assert report["counts"]["inputs"] == lines_in(tmp_path / "rows.partial") == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_while_the_report_is_written_leaves_one(
    interrupted: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    real_fsync, times = os.fsync, iter([True])

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        if (tmp_path / "rows").exists() and next(times, False):  # the report's
            raise KeyboardInterrupt

    assert interrupted(fsync=fsync)["counts"]["inputs"] == 5


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        (["--max-anomaly-rate", "0.5"], 0),
        (["--max-anomaly-rate", "0.49"], 6),
        (["--min-processed", "4"], 0),
        (["--min-processed", "5"], 6),
        (["--max-error-rate", "0"], 0),
        (["--max-anomaly-rate", "0.49", "--fail-on-anomaly"], 6),
        (["--max-anomaly-rate", "0.5", "--fail-on-anomaly"], 1),
    ],
)
def test_a_gate_that_is_missed_is_exit_6(
    bundle: str, photos: Path, gate: list[str], code: int
) -> None:
    (photos / "9.png").unlink()
    assert main(["infer", "--bundle", bundle, *gate, str(photos)]) == code


def test_a_failed_input_outweighs_a_gate_and_the_gate_is_told_all_the_same(
    bundle: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["infer", "--bundle", bundle, "--max-error-rate", "0.1", str(photos)]
    assert main(command) == 4
    assert "gate missed: --max-error-rate 0.1, found 0.2" in capsys.readouterr().err


def test_a_rate_of_nothing_is_unknown_and_not_kept() -> None:
    gates = Gates(max_anomaly_rate=1.0, max_error_rate=1.0, min_processed=0)
    results = RunStatistics().gate_results(gates)
    assert [result["kept"] for result in results] == [False, False, True]
    assert (
        gate_lines(results)[0] == "gate missed: --max-anomaly-rate 1, found no picture"
    )


@pytest.mark.parametrize("flag", ["--max-anomaly-rate", "--max-error-rate"])
@pytest.mark.parametrize("value", ["1.1", "-0.1", "nan", "half"])
def test_a_rate_that_is_none_is_a_usage_error(flag: str, value: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["infer", "--bundle", "b", flag, value, "x.png"])
    assert caught.value.code == 2


def test_percentiles_are_exact_by_nearest_rank() -> None:
    statistics = RunStatistics()
    for number in range(100, 0, -1):
        statistics.add(row(float(number)))
    assert statistics.to_json()["score"] == {
        **{"min": 1.0, "p1": 1.0, "p5": 5.0, "p50": 50.0, "p95": 95.0, "p99": 99.0},
        "max": 100.0,
    }


def test_many_rows_stay_a_sample_with_true_ends() -> None:
    statistics = RunStatistics()
    n = 5 * SAMPLE_SIZE
    for number in range(n):
        statistics.add(row(float(number)))
    score = statistics.to_json()["score"]
    assert (score["min"], score["max"]) == (0.0, n - 1.0)
    assert score["p50"] == pytest.approx(n / 2, rel=0.05)  # measured: 0.6 % off
    assert len(statistics._scores._values) == SAMPLE_SIZE


def test_errors_are_told_the_most_frequent_first() -> None:
    statistics = RunStatistics()
    for code in ("IMAGE_EMPTY", "IMAGE_MISSING", "IMAGE_MISSING"):
        statistics.add(failed(code))
    told_codes = [(e["code"], e["count"]) for e in statistics.to_json()["errors"]]
    assert told_codes == [("IMAGE_MISSING", 2), ("IMAGE_EMPTY", 1)]


def test_every_code_of_an_error_row_has_a_next_step() -> None:
    codes = set()
    for path in SOURCE.rglob("*.py"):
        codes |= set(re.findall(r'\bcode="([A-Z_]+)"', path.read_text("utf-8")))
    assert codes == set(NEXT_STEPS)
