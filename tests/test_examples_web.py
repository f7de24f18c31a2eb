"""The page for browsers scores as Python does, proves itself, and refuses in words."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from bundle_copies import edit_document
from chained_demo import write_chained_demo
from devtools import Browser, Page, started
from pyimgano_runtime import Predictor
from pyimgano_runtime.check import difference_of_range, relative_difference
from pyimgano_runtime.geometry import map_to_image
from pyimgano_runtime.pictures import overlay_range
from pyimgano_runtime.thresholds import p_value

pytestmark = [pytest.mark.slow, pytest.mark.browser]

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "bundles" / "demo"
# npm's words for a machine that reaches no registry; other failures are ours.
OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")
# Other kernels than Python's round otherwise: 1.6e-7 and 3.1e-6 were measured here.
SCORE_REL, MAP_OF_RANGE = 1e-5, 1e-4

TROUBLE = "document.querySelector('#trouble').textContent"
STATUS = "document.querySelector('#status')?.textContent"
IDLE = "document.querySelector('body[aria-busy=false]') !== null"
SCORED = "window.scored && (window.scored.map = [...(window.scored.map ?? [])])"
ROW = "JSON.parse(document.querySelector('#row').textContent)"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a request is no finding."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as its README builds it, with the demo bundle beside it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    examples = tmp_path_factory.mktemp("web")
    ignore = shutil.ignore_patterns("node_modules", "site")
    for name in ("node", "web"):
        shutil.copytree(ROOT / "examples" / name, examples / name, ignore=ignore)
    for command in (["ci", "--no-audit", "--no-fund"], ["run", "build", "--", DEMO]):
        done = subprocess.run(
            ["npm", *command],
            cwd=examples / "web",
            env=os.environ | {"CI": "true"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode and any(word in done.stderr for word in OFFLINE):
            pytest.skip("npm reaches no package registry here")
        assert done.returncode == 0, done.stderr
    return examples / "web" / "site"


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where Python's own server gives that folder."""
    handler = functools.partial(QuietHandler, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(params=[1280])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    tab = Page(browser, request.param)
    yield tab
    tab.close()


def settled(page: Page) -> None:
    """Wait until the page has done what was asked, or refused it."""
    page.wait(IDLE)
    page.value("addEventListener('scored', (e) => (window.scored = e.detail), true)")


def opened(page: Page, address: str, query: str = "?bundle=bundle") -> None:
    page.open(address + query)
    settled(page)


def scored(page: Page, act: Callable[[], object]) -> tuple[dict[str, Any], Any]:
    """The row and the map that follow an act."""
    page.value("window.scored = undefined")
    act()
    page.wait(f"window.scored || {TROUBLE}")
    assert page.value(TROUBLE) == ""
    found = page.value(SCORED + ", window.scored")
    map_f32 = np.array(found["map"], np.float32).reshape(found["mapSize"])
    return found["row"], map_f32


def golden(page: Page, name: str) -> tuple[dict[str, Any], Any]:
    """The row and the map after a click on one of the bundle's pictures."""
    buttons = "[...document.querySelectorAll('#examples button')]"
    click = f"{buttons}.find((b) => b.textContent === '{name}').click()"
    return scored(page, lambda: page.value(click))


def refusal(page: Page, act: Callable[[], object]) -> str:
    """The words that follow an act; no result is shown beside them."""
    act()
    words: str = page.wait(TROUBLE)
    assert page.value("document.querySelector('#result').hidden")
    return words


def expect_as_in_python(
    row: dict[str, Any],
    map_f32: npt.NDArray[np.float32],
    picture: Path,
    bundle: Path = DEMO,
) -> None:
    """Score, label, p-value, map and pixels are those of pyimgano_runtime."""
    predictor = Predictor.open(bundle)
    image = predictor.read(picture)
    expected = predictor.predict(image)
    assert row["pixels_sha256"] == hashlib.sha256(image.tobytes()).hexdigest()
    assert relative_difference(row["score"], expected.score) <= SCORE_REL
    assert row["label"] == expected.label
    assert row["threshold"] == expected.threshold
    scores = predictor.settings.calibration.image_scores
    assert row["p_value"] == pytest.approx(p_value(expected.score, scores), rel=1e-12)
    assert difference_of_range(map_f32, expected.anomaly_map) <= MAP_OF_RANGE


def noise_pictures(folder: Path) -> list[Path]:
    """White noise, so that a wrong channel, blending or gamma shows in the pixels."""
    noise = np.random.default_rng(1).integers(0, 256, (90, 150, 4), dtype=np.uint8)
    names = ["grey.png", "rgb.png", "rgba.png", "two_tone.png"]
    paths = [folder / name for name in names]
    cv2.imwrite(str(paths[0]), noise[..., 0])
    cv2.imwrite(str(paths[1]), noise[..., :3])
    cv2.imwrite(str(paths[2]), noise)
    cv2.imwrite(str(paths[3]), noise[..., 0], [cv2.IMWRITE_PNG_BILEVEL, 1])
    return paths


def test_the_lock_file_names_no_registry() -> None:
    lock = (ROOT / "examples" / "web" / "package-lock.json").read_text("utf-8")
    assert '"resolved"' not in lock


@pytest.mark.parametrize("page", [1280, 400], indirect=True)
def test_every_golden_scores_as_in_python(page: Page, address: str) -> None:
    opened(page, address)

    for picture in sorted((DEMO / "golden").glob("*.[jp][pn]g")):
        expect_as_in_python(*golden(page, picture.name), picture)

    assert page.value(STATUS).startswith("Scored golden/003.png in ")
    assert page.messages == []
    assert [r for r in page.requests if not r.startswith((address, "data:,"))] == []
    found = page.value("[innerWidth, document.documentElement.scrollWidth]")
    assert found[1] <= found[0]


def test_a_console_message_and_a_foreign_request_would_be_seen(
    page: Page, address: str
) -> None:
    opened(page, address)
    page.value("fetch('http://127.0.0.1:1/').catch(() => 0)")
    assert any("Content Security Policy" in message for message in page.messages)


def test_the_page_says_that_the_model_is_proven_here(page: Page, address: str) -> None:
    opened(page, address)
    verdict = page.value("document.querySelector('#verdict').textContent")
    assert "Proven on this very browser" in verdict
    assert "on 4 of 4 golden pictures" in verdict


def test_png_pictures_of_every_kind_have_the_runtime_s_pixels(
    page: Page, address: str, tmp_path: Path
) -> None:
    opened(page, address)
    for picture in noise_pictures(tmp_path):
        choose = functools.partial(page.choose, "#choose-picture", picture)
        expect_as_in_python(*scored(page, choose), picture)


def test_a_turned_jpeg_is_scored_upright(
    page: Page, address: str, tmp_path: Path
) -> None:
    plain, turned = tmp_path / "plain.jpg", tmp_path / "turned.jpg"
    cv2.imwrite(str(plain), cv2.imread(str(DEMO / "golden" / "001.png")))
    data = plain.read_bytes()
    # An EXIF block with one entry: orientation 6, a quarter turn.
    block = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    turned.write_bytes(data[:2] + segment + data[2:])
    opened(page, address)
    row, map_f32 = scored(page, lambda: page.drop(turned))
    expect_as_in_python(row, map_f32, turned)
    assert row["score"] != scored(page, lambda: page.drop(plain))[0]["score"]


def test_a_dropped_bundle_of_chained_models_scores_as_in_python(
    page: Page, address: str, tmp_path: Path
) -> None:
    chained = write_chained_demo(tmp_path / "chained")
    opened(page, address, "")
    page.drop(chained)
    page.wait("document.querySelector('#picture').hidden === false")
    expect_as_in_python(*golden(page, "001.png"), DEMO / "golden" / "001.png", chained)


def test_a_chosen_folder_is_opened(page: Page, address: str) -> None:
    opened(page, address, "")
    page.choose("#choose-bundle", DEMO)
    page.wait("document.querySelector('#picture').hidden === false")
    assert page.value(STATUS) == "The bundle is ready for pictures of bracket."


def test_one_of_several_categories_must_be_chosen(
    page: Page, address: str, tmp_path: Path
) -> None:
    two = shutil.copytree(DEMO, tmp_path / "two")

    def add_category(document: dict[str, Any]) -> None:
        document["categories"]["second"] = document["categories"]["bracket"]

    edit_document(two, add_category)
    opened(page, address, "")
    page.drop(two)
    page.wait(f"{STATUS}.includes('choose one')")
    choose = "const s = document.querySelector('#category'); s.value = 'bracket';"
    page.value(f"{{{choose} s.dispatchEvent(new Event('change'))}}")
    page.wait(f"{STATUS} === 'The bundle is ready for pictures of bracket.'")


def test_the_threshold_is_moved_by_keys_and_put_back(page: Page, address: str) -> None:
    opened(page, address)
    row, _ = golden(page, "001.png")
    assert (row["label"], row["threshold_source"]) == ("anomaly", "bundle")

    page.value("document.querySelector('#slider').focus()")
    page.press("End")
    moved = page.value(ROW)
    assert (moved["label"], moved["threshold_source"]) == ("normal", "page")
    assert moved["threshold"] > moved["score"] == row["score"]
    words = page.value("document.querySelector('#false-alarms').textContent")
    assert "The bundle's own is 3.84717" in words

    page.press("Tab")  # the number
    page.press("Tab")  # the button
    page.press("Enter")
    assert page.value(ROW) == row


def test_scores_are_compared_with_the_threshold_in_float32(
    page: Page, address: str
) -> None:
    opened(page, address)
    row, _ = golden(page, "001.png")
    more = row["score"] * (1 + 1e-12)  # more in float64, equal in float32
    assert more > row["score"]
    number = "const n = document.querySelector('#threshold')"
    page.value(f"{{{number}; n.value = {more}; n.dispatchEvent(new Event('input'))}}")
    assert page.value(ROW)["threshold"] == more
    assert page.value(ROW)["label"] == "anomaly"


def test_the_frame_is_drawn_only_where_asked(page: Page, address: str) -> None:
    opened(page, address)
    golden(page, "001.png")
    paper = "document.querySelector('#canvas')"
    cyan = (
        f"(() => {{ const {{ data }} = {paper}.getContext('2d').getImageData(0, 0, "
        f"{paper}.width, {paper}.height); let found = 0; "
        "for (let i = 0; i < data.length; i += 4) "
        "found += data[i] === 0 && data[i + 1] === 255 && data[i + 2] === 255; "
        "return found; })()"
    )
    assert page.value(cyan) > 100
    page.value("document.querySelector('#heat-on').click()")
    assert page.value(cyan) == 0


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(90, 151), (151, 90), (7, 5)])
def test_a_map_is_laid_on_its_picture_as_by_the_runtime(
    page: Page, address: str, mode: str, size: tuple[int, int]
) -> None:
    map_f32 = np.random.default_rng(3).random((12, 16), dtype=np.float32)
    height, width = size
    given = (
        f"{{height: {height}, width: {width}}}, {{height: {height}, width: {width}}}, "
        f"new Float32Array({map_f32.ravel().tolist()}), [12, 16], '{mode}'"
    )
    page.open(address)
    page.wait(IDLE)
    found = page.value(f"import('/heat.mjs').then((m) => [...m.mapOver({given})])")
    expected = map_to_image(map_f32, size, mode=mode)
    assert np.abs(np.reshape(found, size) - expected).max() <= 1e-6


@pytest.mark.parametrize(
    ("scores", "threshold"), [([1, 2, 4], 5), ([1, 2], 4), ([], 3), ([9, 9], 2)]
)
def test_the_colours_have_the_range_of_the_runtime_s_overlays(
    page: Page, address: str, scores: list[float], threshold: float
) -> None:
    page.open(address)
    page.wait(IDLE)
    given = f"{{scores: {scores}, threshold: 99, pixelThreshold: {threshold}}}"
    found = page.value(f"import('/heat.mjs').then((m) => m.heatRange({given}))")
    assert (found["low"], found["high"]) == overlay_range(threshold, scores)


def spoiled(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    copy = Path(shutil.copytree(DEMO, tmp_path / "bundle"))
    edit_document(copy, change)
    return copy


def test_a_changed_byte_in_the_model_is_refused(
    page: Page, address: str, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(DEMO, tmp_path / "bundle"))
    model = next((copy / "models").glob("*.onnx"))
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    opened(page, address, "")
    assert "bracket.onnx: sha256 is " in refusal(page, lambda: page.drop(copy))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema_version="2.0"), 'schema_version is "2.0"'),
        (lambda d: d.update(requires=["tiling"]), 'requires ["tiling"], unknown here'),
        (lambda d: d.update(kind="run"), "pyimgano bundle export"),
    ],
)
def test_a_document_that_it_cannot_honour_is_refused(
    page: Page,
    address: str,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    said: str,
) -> None:
    copy = spoiled(tmp_path, change)
    opened(page, address, "")
    assert said in refusal(page, lambda: page.drop(copy))


def test_a_golden_that_disagrees_is_said_loudly(
    page: Page, address: str, tmp_path: Path
) -> None:
    def raise_scores(document: dict[str, Any]) -> None:
        for entry in document["parity"]["goldens"]:
            entry["score"] *= 1.001

    opened(page, address, "")
    page.drop(spoiled(tmp_path, raise_scores))
    page.wait("document.querySelector('#picture').hidden === false")
    verdict = page.value("document.querySelector('#verdict').textContent")
    assert verdict.startswith("Do not trust the scores of this page: 4 of 4 golden")


def test_a_jpeg_that_decodes_otherwise_is_said_beside_its_kind(
    page: Page, address: str, tmp_path: Path
) -> None:
    def other_pixels(document: dict[str, Any]) -> None:
        (jpeg,) = (
            g for g in document["parity"]["goldens"] if g["image"].endswith(".jpg")
        )
        jpeg["pixels_sha256"] = "0" * 64

    opened(page, address, "")
    page.drop(spoiled(tmp_path, other_pixels))
    page.wait("document.querySelector('#picture').hidden === false")
    verdict = page.value("document.querySelector('#verdict').textContent")
    assert "decodes golden/000.jpg to other pixels than at export" in verdict
    assert "Proven on this very browser" in verdict
    note = "document.querySelector('#note').textContent"
    golden(page, "000.jpg")
    assert "decodes JPEG a little otherwise" in page.value(note)
    golden(page, "001.png")
    assert page.value(note) == ""


def test_a_bundle_of_another_server_is_refused(page: Page, address: str) -> None:
    foreign = "?bundle=https://example.org/bundle"
    said = refusal(page, lambda: opened(page, address, foreign))
    assert "is on another server" in said
    assert not any("example.org/bundle/" in request for request in page.requests)


def test_an_address_without_a_bundle_is_refused(page: Page, address: str) -> None:
    said = refusal(page, lambda: opened(page, address, "?bundle=nowhere"))
    assert "the server answers 404" in said


def test_a_folder_that_is_no_bundle_is_refused(
    page: Page, address: str, tmp_path: Path
) -> None:
    opened(page, address, "")
    (tmp_path / "photos").mkdir()
    said = refusal(page, lambda: page.drop(tmp_path / "photos"))
    assert "choose the bundle folder itself" in said


def test_bad_pictures_are_refused_in_words_and_the_page_goes_on(
    page: Page, address: str, tmp_path: Path
) -> None:
    png, jpeg = DEMO / "golden" / "001.png", DEMO / "golden" / "000.jpg"
    deep = np.random.default_rng(2).integers(0, 65536, (40, 50, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    (tmp_path / "cut.png").write_bytes(png.read_bytes()[:50_000])
    (tmp_path / "cut.jpg").write_bytes(jpeg.read_bytes()[:15_000])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"no picture at all")
    huge = bytearray(png.read_bytes())
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    (tmp_path / "huge.png").write_bytes(huge)
    for kind in (b"acTL", b"eXIf"):
        data = png.read_bytes()
        chunk = b"\0\0\0\x08" + kind + bytes(12)
        (tmp_path / f"{kind.decode()}.png").write_bytes(data[:33] + chunk + data[33:])
    words = {
        "acTL.png": "holds several pictures",
        "eXIf.png": "has an EXIF block",
        "deep.png": "16 bits per channel",
        "cut.png": "is cut off",
        "cut.jpg": "is cut off",
        "empty.png": "is neither PNG nor JPEG",
        "text.png": "is neither PNG nor JPEG",
        "huge.png": "60000 x 60000 pixels",
    }
    opened(page, address)
    for name, said in words.items():
        page.value(f"{TROUBLE} = ''")
        drop = functools.partial(page.drop, tmp_path / name)
        assert f"{name}: {said}" in refusal(page, drop)
    expect_as_in_python(*scored(page, lambda: page.drop(png)), png)
    assert page.messages == []


def test_a_picture_before_any_bundle_is_refused(page: Page, address: str) -> None:
    opened(page, address, "")
    said = refusal(page, lambda: page.drop(DEMO / "golden" / "001.png"))
    assert "choose a bundle first" in said
    assert page.messages == []
