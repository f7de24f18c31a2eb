"""The README says what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_bundle import grey, save_picture, write_bundle

from pyimgano_runtime import cli, cli_options

HOUSE = Path(__file__).parents[1]
README = (HOUSE / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "bundle")
    save_picture(tmp_path / "part.png", grey(40))
    monkeypatch.chdir(tmp_path)
    match = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert match is not None
    exec(match[1], {})
    assert capsys.readouterr().out == (
        "normal 40.0 >= 100.0\nas anomalous as 0.2 of the normal pictures\n(4, 6)\n"
    )


def test_the_exit_codes_are_those_of_the_program() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    codes = {v for name, v in vars(cli_options).items() if name.startswith("EXIT_")}
    assert told == codes | {0}
    assert told == {int(c) for c in re.findall(r"(\d+) [a-z]", cli.EXIT_TEXT)}


def test_the_licence_is_the_one_of_the_repository() -> None:
    whole = HOUSE.parent / "LICENSE"
    if not (HOUSE.parent / "pyimgano").is_dir():
        pytest.skip("the runtime stands alone here")
    assert (HOUSE / "LICENSE").read_bytes() == whole.read_bytes()
