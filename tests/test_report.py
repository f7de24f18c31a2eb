"""`pyimgano report`: what the page of a run and of a bundle says, and refusals."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bundle_copies import (
    copy_of,
    edit_document,
    edit_json,
    remove_goldens,
    set_threshold,
)
from conftest import CommandResult, Exported
from factories import read_rows, write_manifest
from pyimgano.cli import main
from pyimgano.pipelines.report_run import report_of_run
from pyimgano.pipelines.result_folder import open_result
from pyimgano.reporting.report_facts import Counted, Report
from pyimgano.reporting.report_page import report_html
from pyimgano_runtime.bundle import open_bundle

RunCli = Callable[..., CommandResult]


class Page(HTMLParser):
    """Tags and text of a page; styles are left out."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(self.html)
        self.text = " ".join(self.text.split())  # breaking spaces only

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        self.text += " " if tag not in ("b", "span", "a") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        self.text += "" if self._inside == "style" else data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def read(path: Path) -> Page:
    return Page(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def small(exported: Callable[[str], Exported]) -> Exported:
    return exported("pixel_stats")


@pytest.fixture(scope="module")
def told(small: Exported) -> Report:
    """What the page of the run tells."""
    return report_of_run(
        open_result(small.run),
        open_bundle(small.bundle),
        gallery=4,
        progress=lambda step, done, total: None,
        warn=pytest.fail,
    )


@pytest.fixture(scope="module")
def run_page(small: Exported, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("report") / "run.html"
    command = ["report", str(small.run), "--html", str(path)]
    assert main([*command, "--bundle", str(small.bundle)]) == 0
    return read(path)


@pytest.fixture(scope="module")
def bundle_page(small: Exported, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("report") / "bundle.html"
    assert main(["report", str(small.bundle), "--html", str(path)]) == 0
    return read(path)


@pytest.fixture
def movable(small: Exported, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the run and of its data, which a test may spoil."""
    data = copy_of(small.manifest.parent, tmp_path / "data")
    run = copy_of(small.run, tmp_path / "run")
    place_data(run, data / small.manifest.name)
    return run, data / small.manifest.name


def place_data(run: Path, manifest: Path) -> None:
    def change(config: dict[str, dict[str, str]]) -> None:
        config["dataset"]["manifest_path"] = str(manifest)

    edit_json(run / "config.json", change)


# --- a run --------------------------------------------------------------------------


def test_the_page_counts_as_the_report_of_the_run_does(
    small: Exported, run_page: Page
) -> None:
    facts = open_result(small.run).categories["bracket"]
    counts, bounds = facts["counts"], facts["false_alarm_rate_bounds"]
    n_defects = counts["test_anomalies"]
    found = round(facts["recall"] * n_defects)

    assert f"{found} of {n_defects} defective pictures found" in run_page.text
    assert f"Learned from {counts['train_normals']} good pictures" in run_page.text
    alarms = f"{bounds['images_above']} of {bounds['n_images']} good pictures"
    assert f"In the test {alarms} were flagged" in run_page.text
    high = f"{100 * bounds['by_images'][1]:.1f} %"
    assert f"to {high} (95 % interval)" in run_page.text


def test_the_page_says_how_the_threshold_was_got_and_what_it_promises(
    run_page: Page,
) -> None:
    assert (
        "The threshold lies just above the highest of 20 scores of good training "
        "pictures, each judged by a model that had not seen it." in run_page.text
    )
    assert "It promises that about 4.76 % of good pictures" in run_page.text
    assert "it takes 99" in run_page.text


def test_mistakes_stand_before_what_went_well(run_page: Page) -> None:
    titles = re.findall(
        r"(Missed|False alarms|Found|Accepted): (?:defective|good), ", run_page.text
    )
    assert titles == [
        title
        for title in ("Missed", "False alarms", "Found", "Accepted")
        if title in titles
    ]
    assert {"Found", "Accepted"} <= set(titles)


def test_every_test_picture_of_a_small_run_is_shown_with_its_heat_map(
    run_page: Page,
) -> None:
    photos = [img for img in run_page.all("img")]
    assert len(photos) == 2 * 12
    ringed = [i for i in photos if "ringed in yellow" in str(i["alt"])]
    assert len(ringed) == 6  # every defect has a mask


def test_the_page_needs_nothing_from_elsewhere(
    run_page: Page, bundle_page: Page
) -> None:
    for page in (run_page, bundle_page):
        assert not page.all("script")
        assert [link["href"] for link in page.all("link")] == ["data:,"]
        sources = [str(img["src"]) for img in page.all("img")]
        assert all(src.startswith("data:image/jpeg;base64,") for src in sources)
        assert not re.search(r"url\(|@import|https?:", page.html)


def test_pictures_and_charts_are_described_in_words(
    run_page: Page, bundle_page: Page
) -> None:
    for page in (run_page, bundle_page):
        assert all(img["alt"] for img in page.all("img"))
        drawings = [svg for svg in page.all("svg") if svg.get("role") == "img"]
        assert drawings
        assert all(svg["aria-label"] for svg in drawings)
        assert page.html.count("The same as a table") == page.html.count(
            "across: score"
        )
        ids = {attrs["id"] for _, attrs in page.tags if attrs.get("id")}
        links = [str(a["href"]) for a in page.all("a")]
        assert links
        assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_the_table_of_a_histogram_holds_every_picture(run_page: Page) -> None:
    tables = re.findall(r"<details>.*?</details>", run_page.html, re.DOTALL)
    reference, tested = (
        [
            [int(cell) for cell in cells[1:]]
            for row in re.findall(r"<tr>(.*?)</tr>", table)[1:]
            if (cells := re.findall(r"<td>(.*?)</td>", row))
        ]
        for table in tables
    )
    assert sum(row[0] for row in reference) == 20
    assert [sum(column) for column in zip(*tested, strict=True)] == [6, 6]


def test_the_exported_model_is_compared_with_the_trained_one(
    small: Exported, run_page: Page
) -> None:
    assert "This run was exported as the bundle bundle 1." in run_page.text
    assert "judged the same 12 pictures" in run_page.text
    assert "not one verdict differs" in run_page.text
    assert "Same verdict after export 12 of 12" in run_page.text


def test_a_run_that_was_not_exported_says_so(
    small: Exported, tmp_path: Path, run_cli: RunCli
) -> None:
    page = tmp_path / "page.html"
    assert run_cli("report", small.run, "--html", page, "--no-pictures").code == 0
    assert "No bundle of this run was named or lies in it" in read(page).text


def test_a_bundle_in_the_run_is_found(
    small: Exported, movable: tuple[Path, Path], tmp_path: Path, run_cli: RunCli
) -> None:
    run, _ = movable
    copy_of(small.bundle, run / "bundle")
    page = tmp_path / "page.html"
    assert run_cli("report", run, "--html", page, "--no-pictures").code == 0
    assert "This run was exported as the bundle bundle 1." in read(page).text


def test_a_bundle_in_the_run_that_is_of_another_one_is_left_out(
    small: Exported, movable: tuple[Path, Path], tmp_path: Path, run_cli: RunCli
) -> None:
    run, _ = movable
    set_threshold(copy_of(small.bundle, run / "bundle"), 99.0)
    page = tmp_path / "page.html"
    done = run_cli("report", run, "--html", page, "--no-pictures")

    assert done.code == 0
    assert "it is of another run (bracket: another image threshold)" in done.stderr
    assert "No bundle of this run was named or lies in it" in read(page).text


def test_the_facts_of_the_model_card_are_there(small: Exported, run_page: Page) -> None:
    facts = json.loads((small.run / "report.json").read_text("utf-8"))
    assert "Detector pixel_stats" in run_page.text
    assert facts["categories"]["bracket"]["data_fingerprint"] in run_page.text
    assert "Half of the pictures take at most" in run_page.text
    assert open_bundle(small.bundle).sha256 in run_page.text


def test_no_folder_of_this_machine_is_named(
    small: Exported, run_page: Page, bundle_page: Page
) -> None:
    for page in (run_page, bundle_page):
        assert str(small.manifest.parent) not in page.html
        assert str(small.run.parent) not in page.html


def test_several_categories_have_a_section_each_and_a_table_of_contents(
    told: Report,
) -> None:
    (bracket,) = told.categories
    two = (bracket, replace(bracket, name="connector"))
    page = Page(report_html(replace(told, categories=two)))

    assert page.all("nav")[0]["aria-label"] == "Contents"
    links = [str(a["href"]) for a in page.all("a")]
    assert links[:4] == ["#c1", "#c2", "#facts", "#words"]
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(set(ids)) == len(ids)
    for name in ("bracket", "connector"):
        assert f"Parts of {name}" in page.html
    assert "of 12 defective pictures found" in page.text  # of both together


def test_a_test_without_defects_has_no_curves_and_says_so(told: Report) -> None:
    (bracket,) = told.categories
    good = tuple(part for part in bracket.parts if not part.defective)
    alone = replace(bracket, parts=good, counted=Counted.of_parts(good))
    page = Page(report_html(replace(told, categories=(alone,))))

    assert "no defective ones were tested" in page.text
    assert "6 good ones; no defective one was tested." in page.text
    assert "ROC curve" not in page.text
    assert page.html.count('role="img"') == 2  # both histograms


def test_names_are_text_and_never_markup(told: Report) -> None:
    hostile = "<script>alert(1)</script>"
    (bracket,) = told.categories
    part = replace(bracket.parts[0], name=hostile, kind=hostile)
    named = replace(bracket, name=hostile, parts=(part, *bracket.parts[1:]))
    page = Page(report_html(replace(told, name=hostile, categories=(named,))))

    assert not page.all("script")
    assert hostile in page.text


def test_the_gallery_is_bounded(
    small: Exported, tmp_path: Path, run_cli: RunCli
) -> None:
    page = tmp_path / "page.html"
    done = run_cli("report", small.run, "--html", page, "--gallery", 3)

    assert done.code == 0
    assert len(read(page).all("img")) == 3 * 2  # photograph and heat map


# --- photographs --------------------------------------------------------------------


def test_photographs_are_noticed_and_counted(
    small: Exported, tmp_path: Path, run_cli: RunCli
) -> None:
    page = tmp_path / "page.html"
    done = run_cli("report", small.run, "--html", page)

    assert done.code == 0
    (note,) = done.stderr.splitlines()
    assert note.startswith(f"note: {page} holds 24 small copies of your photographs")
    kilobytes = round(page.stat().st_size / 1000)
    assert done.stdout == f"{page}: {kilobytes} kB, 24 pictures\n"
    assert "This page holds 24 small copies of photographs" in read(page).text


def test_without_pictures_there_is_none_and_no_notice(
    small: Exported, tmp_path: Path, run_cli: RunCli
) -> None:
    page = tmp_path / "page.html"
    done = run_cli("report", small.run, "--html", page, "--no-pictures")

    assert done.code == 0
    assert done.stderr == ""
    assert "data:image" not in page.read_text("utf-8")
    assert "Pictures were left out on request." in read(page).text
    assert "This page holds no picture." in read(page).text


# --- what is gone -------------------------------------------------------------------


def test_a_page_is_made_where_all_pictures_are_gone(
    movable: tuple[Path, Path], tmp_path: Path, run_cli: RunCli
) -> None:
    run, manifest = movable
    shutil.rmtree(manifest.parent)
    page = tmp_path / "page.html"
    done = run_cli("report", run, "--html", page)

    assert done.code == 0
    assert done.stderr.startswith(f"warning: pictures are left out: {manifest}")
    told = read(page)
    assert not told.all("img")
    assert "not at the place that the run recorded any more" in told.text
    assert "of 6 defective pictures found" in told.text
    assert str(tmp_path) not in told.html


def test_a_single_picture_that_is_gone_leaves_the_others(
    movable: tuple[Path, Path], tmp_path: Path, run_cli: RunCli
) -> None:
    run, manifest = movable
    tested = [row for row in read_rows(manifest) if row["split"] == "test"]
    (manifest.parent / tested[0]["image_path"]).unlink()
    page = tmp_path / "page.html"

    assert run_cli("report", run, "--html", page).code == 0
    told = read(page)
    assert len(told.all("img")) == 2 * 11
    assert "1 of the 12 pictures chosen here could not be read" in told.text
    assert "the picture could not be read" in told.text


def test_a_picture_that_is_another_one_now_is_told(
    movable: tuple[Path, Path], tmp_path: Path, run_cli: RunCli
) -> None:
    run, manifest = movable
    tested = [row for row in read_rows(manifest) if row["split"] == "test"]
    good = next(row for row in tested if row["label"] == 0)
    bad = next(row for row in tested if row["label"] == 1)
    folder = manifest.parent
    shutil.copyfile(folder / bad["image_path"], folder / good["image_path"])
    page = tmp_path / "page.html"

    assert run_cli("report", run, "--html", page).code == 0
    assert read(page).text.count("picture or model changed since the run") == 1


def test_a_mask_that_is_gone_costs_its_ring_only(
    movable: tuple[Path, Path], tmp_path: Path, run_cli: RunCli
) -> None:
    run, manifest = movable
    rows = [row | {"mask_path": None} for row in read_rows(manifest)]
    write_manifest(manifest, rows)
    page = tmp_path / "page.html"

    assert run_cli("report", run, "--html", page).code == 0
    told = read(page)
    assert len(told.all("img")) == 2 * 12
    assert "ringed in yellow" not in told.html


def test_a_model_that_is_not_the_trained_one_costs_the_heat_maps(
    movable: tuple[Path, Path], tmp_path: Path, run_cli: RunCli
) -> None:
    run, _ = movable
    (model,) = run.glob("checkpoints/*/model.safetensors")
    model.write_bytes(model.read_bytes()[:-1])
    page = tmp_path / "page.html"
    done = run_cli("report", run, "--html", page)

    assert done.code == 0
    assert "backbone and heat maps are left out" in done.stderr
    told = read(page)
    assert len(told.all("img")) == 12
    assert "is not the one that training wrote" in told.text


# --- a bundle -----------------------------------------------------------------------


def test_a_bundle_tells_what_it_holds_and_what_it_lacks(bundle_page: Page) -> None:
    text = bundle_page.text
    assert "report of the bundle “bundle 1”" in text
    assert "of 6 defective pictures found" in text
    assert "The threshold lies just above the highest of 20 scores" in text
    assert "Pictures that set the threshold" in text
    assert "judged the same 12 pictures" in text
    assert "Scores of single test pictures are not in a bundle." in text
    assert "ROC curve" not in text
    assert "models/bracket.onnx, ONNX opset 20, fp32" in text


def test_synthetic_goldens_are_shown_and_are_no_photographs(
    small: Exported, tmp_path: Path, run_cli: RunCli
) -> None:
    page = tmp_path / "page.html"
    done = run_cli("report", small.bundle, "--html", page)
    document = json.loads((small.bundle / "infer_config.json").read_text("utf-8"))
    goldens = document["parity"]["goldens"]

    assert done.code == 0
    assert done.stderr == ""
    told = read(page)
    assert len(told.all("img")) == 2 * len(goldens)
    assert all(golden["image"] in told.text for golden in goldens)
    assert "none of them is a photograph" in told.text


def test_real_goldens_are_photographs(
    small: Exported, tmp_path: Path, run_cli: RunCli
) -> None:
    def change(document: dict[str, Any]) -> None:
        for golden in document["parity"]["goldens"]:
            golden["kind"] = "real"

    bundle, page = copy_of(small.bundle, tmp_path / "bundle"), tmp_path / "page.html"
    edit_document(bundle, change)

    assert "of your photographs" in run_cli("report", bundle, "--html", page).stderr
    assert "mind who gets it" in read(page).text
    command = ("report", bundle, "--html", page, "--no-pictures", "--force")
    assert run_cli(*command).stderr == ""
    assert "data:image" not in page.read_text("utf-8")


def test_a_bundle_without_goldens_still_has_a_page(
    small: Exported, tmp_path: Path, run_cli: RunCli
) -> None:
    bundle = copy_of(small.bundle, tmp_path / "bundle")
    remove_goldens(bundle)
    page = tmp_path / "page.html"

    assert run_cli("report", bundle, "--html", page).code == 0
    assert "This bundle holds no pictures." in read(page).text


def test_a_changed_golden_is_refused(
    small: Exported, tmp_path: Path, run_cli: RunCli
) -> None:
    bundle = copy_of(small.bundle, tmp_path / "bundle")
    golden = next(bundle.glob("golden/*.png"))
    golden.write_bytes(golden.read_bytes()[:-1])
    page = tmp_path / "page.html"
    done = run_cli("report", bundle, "--html", page)

    assert done.code == 2
    assert golden.name in done.stderr
    assert not page.exists()


# --- refusals -----------------------------------------------------------------------


def refused(done: CommandResult, page: Path) -> str:
    assert done.code == 2
    assert not page.exists()
    (line,) = done.stderr.splitlines()
    return line


def test_other_folders_are_refused(
    small: Exported, tmp_path: Path, run_cli: RunCli
) -> None:
    page = tmp_path / "page.html"
    told = refused(run_cli("report", small.manifest.parent, "--html", page), page)
    assert "is neither a run (no report.json) nor a bundle" in told
    told = refused(run_cli("report", tmp_path / "none", "--html", page), page)
    assert "no such folder" in told


def test_a_benchmark_is_refused_and_its_own_page_named(
    tmp_path: Path, run_cli: RunCli
) -> None:
    category = {"folder": "a", "counts": {}, "engines": {"onnx": {}}}
    report = {"schema_version": "1.0", "kind": "benchmark"}
    text = json.dumps(report | {"categories": {"a": category}})
    (tmp_path / "report.json").write_text(text, encoding="utf-8")

    page = tmp_path / "page.html"
    words = refused(run_cli("report", tmp_path, "--html", page), page)
    assert "is a benchmark, expected a training run or a bundle" in words
    assert "leaderboard.html" in words


def test_a_bundle_of_another_run_is_refused(
    small: Exported, tmp_path: Path, run_cli: RunCli
) -> None:
    page = tmp_path / "page.html"
    other = copy_of(small.bundle, tmp_path / "other")
    set_threshold(other, 99.0)
    command = ("report", small.run, "--html", page, "--bundle")
    assert "was exported from another run" in refused(run_cli(*command, other), page)

    command = ("report", small.bundle, "--html", page, "--bundle")
    assert "is a bundle already" in refused(run_cli(*command, small.bundle), page)


def test_an_existing_page_is_replaced_by_force_only(
    small: Exported, tmp_path: Path, run_cli: RunCli
) -> None:
    page = tmp_path / "page.html"
    command = ("report", small.run, "--html", page, "--no-pictures")
    assert run_cli(*command).code == 0
    before = page.read_bytes()

    done = run_cli(*command)
    assert done.code == 2
    assert "already exists" in done.stderr
    assert page.read_bytes() == before
    assert run_cli(*command, "--force").code == 0


def test_a_file_of_another_kind_is_never_replaced(
    small: Exported, tmp_path: Path, run_cli: RunCli
) -> None:
    page = tmp_path / "notes.html"
    page.write_text("<!DOCTYPE html><title>My notes</title>", encoding="utf-8")
    done = run_cli("report", small.run, "--html", page, "--force")

    assert done.code == 2
    assert "is a file of another kind" in done.stderr
    assert "My notes" in page.read_text("utf-8")


def test_a_page_without_a_name_is_refused(small: Exported, run_cli: RunCli) -> None:
    done = run_cli("report", small.run)
    assert done.code == 2
    assert "--html" in done.stderr
