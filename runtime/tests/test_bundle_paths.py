"""A bundle opens its own plain files only, and each is the one that was listed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_bundle import edit_document, write_bundle

from pyimgano_runtime import Bundle, BundleError, open_bundle
from pyimgano_runtime.cli import main
from pyimgano_runtime.paths import path_problem, plain_name, read_listed

MODEL = "models/tiny.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "b")


def refusal(folder: Path, path: str = MODEL) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(folder).read(path)
    return str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["a", "a.b", "models/x.onnx", "A/b-c_d.e", "1/2/3/4/5/6/7/8", "a" * 120, "a..b"],
)
def test_plain_paths_are_taken(path: str) -> None:
    assert path_problem(path) is None


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/etc/passwd", "a//b", "a/", "./a", ".", "..", "../a", "a/../b"),
        *(
            "a\\b",
            "C:a",
            "c:/a",
            "~/a",
            "a b",
            "a\n",
            "a\nb",
            "a\x00",
            "-a",
            ".a",
            "a.",
        ),
        *("a/.b", "ä", "a/ä", "con", "CON.txt", "a/nul", "lpt1.x", "com9", "a*"),
        *("1/2/3/4/5/6/7/8/9", "a" * 121, "file://a", "$HOME", "%41"),
    ],
)
def test_every_other_path_is_refused(path: str) -> None:
    assert path_problem(path)


@pytest.mark.parametrize("name", ["", "..", "con", "a/b", "ä ö", "x" * 999, "\ud800"])
def test_any_text_becomes_a_plain_name_that_is_not_taken(name: str) -> None:
    taken: set[str] = set()
    names = [plain_name(name, taken) for _ in range(3)]
    assert len({n.lower() for n in names}) == 3
    assert [path_problem(n) for n in names] == [None] * 3


def test_a_file_is_read_by_its_listed_path(folder: Path) -> None:
    assert open_bundle(folder).read(MODEL) == (folder / MODEL).read_bytes()


def test_a_file_that_is_not_listed_is_never_opened(folder: Path) -> None:
    (folder / "extra.bin").write_bytes(b"x")
    assert "does not stand in files" in refusal(folder, "extra.bin")
    assert "does not stand in files" in refusal(folder, "infer_config.json")


def test_a_link_to_the_very_same_file_is_refused(folder: Path) -> None:
    (folder / MODEL).rename(folder.parent / "elsewhere.onnx")
    (folder / MODEL).symlink_to(folder.parent / "elsewhere.onnx")
    assert "no links" in refusal(folder)


def test_a_linked_folder_is_refused(folder: Path) -> None:
    (folder / "models").rename(folder.parent / "models")
    (folder / "models").symlink_to(folder.parent / "models")
    assert "no links" in refusal(folder)


def test_links_are_refused_where_the_system_has_no_folder_handles(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "supports_dir_fd", set())
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert open_bundle(link).read(MODEL)  # the way to the bundle may hold links
    shutil.move(folder / "models", folder.parent / "models")
    (folder / "models").symlink_to(folder.parent / "models")
    assert "is a link" in refusal(folder)


def test_the_document_itself_may_not_be_a_link(folder: Path) -> None:
    document = folder / "infer_config.json"
    document.rename(folder.parent / "c.json")
    document.symlink_to(folder.parent / "c.json")
    assert "no links" in refusal(folder)


def test_the_way_to_the_bundle_may_be_a_link(folder: Path) -> None:
    (folder.parent / "current").symlink_to(folder)
    assert open_bundle(folder.parent / "current").read(MODEL)


def test_a_hard_link_is_refused(folder: Path) -> None:
    os.link(folder / MODEL, folder.parent / "twin")
    assert "2 hard links" in refusal(folder)


def test_hard_links_are_taken_where_they_are_allowed(folder: Path) -> None:
    for path in (MODEL, "infer_config.json"):
        os.link(folder / path, folder.parent / Path(path).name)
    with pytest.raises(BundleError, match="2 hard links"):
        open_bundle(folder)
    opened = open_bundle(folder, allow_hard_links=True)
    assert opened.allow_hard_links
    assert opened.read(MODEL) == (folder / MODEL).read_bytes()
    assert main(["check", str(folder)]) == 3
    assert main(["check", str(folder), "--allow-hard-links"]) == 0
    assert main(["info", str(folder), "--allow-hard-links"]) == 0


def test_allowed_hard_links_do_not_allow_symbolic_ones(folder: Path) -> None:
    (folder / MODEL).rename(folder.parent / "elsewhere.onnx")
    (folder / MODEL).symlink_to(folder.parent / "elsewhere.onnx")
    with pytest.raises(BundleError, match="no links"):
        open_bundle(folder, allow_hard_links=True).read(MODEL)


def test_only_the_expected_release_is_opened(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = open_bundle(folder).sha256
    assert open_bundle(folder, expect_sha256=digest.upper()).sha256 == digest
    with pytest.raises(BundleError) as caught:
        open_bundle(folder, expect_sha256="0" * 64)
    said = f"sha256 is {digest}, expected {'0' * 64}; this is not the bundle that was"
    assert said in str(caught.value)
    for command in (["check"], ["info"], ["infer", folder, "--bundle"]):
        arguments = [*map(str, command), str(folder), "--expect-sha256"]
        assert main([*arguments, "0" * 64]) == 3
        assert "this is not the bundle that was released" in capsys.readouterr().err
    assert main(["check", str(folder), "--expect-sha256", digest]) == 0


def test_another_release_is_refused_before_its_document_is_read(folder: Path) -> None:
    (folder / "infer_config.json").write_text("{")
    with pytest.raises(BundleError, match="not the bundle that was released"):
        open_bundle(folder, expect_sha256="0" * 64)


@pytest.mark.parametrize(
    "text", ["", "abc", "0" * 63, "0" * 65, "g" * 64, "0" * 64 + "\n"]
)
def test_a_malformed_sha256_is_a_usage_error(folder: Path, text: str) -> None:
    with pytest.raises(ValueError, match="expected 64 hex digits"):
        open_bundle(folder, expect_sha256=text)
    with pytest.raises(SystemExit) as caught:
        main(["check", str(folder), "--expect-sha256", text])
    assert caught.value.code == 2


def test_a_signature_beside_the_bundle_is_told_and_not_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [["info", str(folder)], ["check", str(folder)]]
    for command in commands:
        assert main(command) == 0
        assert "signature  " not in capsys.readouterr().out
    (folder.parent / "b.sig").write_bytes(b"\xff")
    (folder.parent / "b.sig").chmod(0)
    for command in commands:
        assert main(command) == 0
        line = (
            "signature  b.sig lies beside the bundle; not verified here "
            "(pyimgano bundle verify --signature)"
        )
        assert line in capsys.readouterr().out.splitlines()
        assert main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["signature"] == "b.sig"


def test_a_fifo_is_refused_and_not_waited_for(folder: Path) -> None:
    (folder / MODEL).unlink()
    os.mkfifo(folder / MODEL)
    assert "is not a regular file" in refusal(folder)


def test_a_folder_in_a_files_place_is_refused(folder: Path) -> None:
    (folder / MODEL).unlink()
    (folder / MODEL).mkdir()
    assert str(folder / MODEL) in refusal(folder)


@pytest.mark.parametrize("gone", [MODEL, "models"])
def test_a_missing_file_is_named(folder: Path, gone: str) -> None:
    target = folder / gone
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    message = refusal(folder)
    assert "is missing; copy the whole bundle folder again" in message
    assert gone in message


def test_one_changed_byte_is_found(folder: Path) -> None:
    data = bytearray((folder / MODEL).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / MODEL).write_bytes(data)
    assert "sha256 is" in refusal(folder)


@pytest.mark.parametrize("more", [b"x", b""])
def test_a_size_that_is_not_the_listed_one_is_found(folder: Path, more: bytes) -> None:
    data = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(data + more if more else data[:-1])
    assert f"expected {len(data)}" in refusal(folder)


def test_a_size_lie_with_the_right_hash_is_refused(folder: Path) -> None:
    edit_document(folder, lambda d: d["files"][0].update(size=1))
    assert "expected 1;" in refusal(folder)


def test_a_file_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as stream:
        stream.truncate(1 << 40)  # a hole: takes no space
    with pytest.raises(BundleError, match="expected at most 100"):
        read_listed(tmp_path, "big", size=None, sha256=None, max_bytes=100)


def test_a_small_file_is_read_in_little_memory(folder: Path) -> None:
    # read(n) takes n bytes at once: the 2 GiB limit would not fit on small devices.
    code = (
        "import resource, sys; from pyimgano_runtime import open_bundle\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "open_bundle(sys.argv[1]).verify_files()"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def test_verify_names_every_file_that_is_wrong(folder: Path) -> None:
    (folder / MODEL).unlink()
    (folder / "MODEL_CARD.md").write_text("other")
    with pytest.raises(BundleError) as caught:
        open_bundle(folder).verify_files()
    assert str(caught.value).startswith("2 problems:")
    assert MODEL in str(caught.value)
    assert "MODEL_CARD.md" in str(caught.value)


def test_unlisted_files_and_links_are_found_wherever_they_lie(folder: Path) -> None:
    assert open_bundle(folder).unlisted_files() == []
    (folder / "golden" / ".x").write_text("")
    (folder / "new").mkdir()
    (folder / "new" / "y").write_text("")
    (folder / "away").symlink_to("/tmp")
    assert open_bundle(folder).unlisted_files() == ["away", "golden/.x", "new/y"]


def test_case_twins_are_refused(folder: Path) -> None:
    def add_twin(document: dict[str, list[dict[str, str]]]) -> None:
        document["files"].append(document["files"][0] | {"path": "models/TINY.onnx"})

    edit_document(folder, add_twin)
    assert '"models/TINY.onnx" and "models/tiny.onnx" are the same' in refusal(folder)


def test_a_bundle_is_opened_by_folder_or_by_its_document(folder: Path) -> None:
    for way in (folder, str(folder), folder / "infer_config.json"):
        opened = open_bundle(way)
        assert isinstance(opened, Bundle)
        assert opened.root == folder


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "is empty"),
        ("nowhere", "no such folder"),
        ("file.zip", "is a file, expected a bundle"),
        ("file.zip", "unpack it first"),
        ("x" * 5000, "cannot be opened"),
        ("a\x00b", ""),
        (".", "has no infer_config.json, expected a bundle"),
    ],
)
def test_a_path_that_is_no_bundle_is_refused_in_words(
    path: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.zip").write_bytes(b"PK")
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert expected in str(caught.value)
