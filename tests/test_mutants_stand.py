"""Each break of `mutants.py` can still be made: it names a text that stands once."""

from __future__ import annotations

from mutants import MUTANTS, REPOSITORY


def test_every_break_names_a_text_that_stands_once_in_its_file() -> None:
    gone = [
        f"{mutant.name}: {mutant.file}"
        for mutant in MUTANTS
        if (REPOSITORY / mutant.file).read_text("utf-8").count(mutant.old) != 1
    ]
    assert not gone, "\n".join(gone)
