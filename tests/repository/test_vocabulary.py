"""The words of the glossary in CONTRIBUTING.md: the private ones are used nowhere else."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from domain.runtime.settings import ROOT

GLOSSARY = ROOT / "CONTRIBUTING.md"

#: Each row of the table has patterns of words to avoid, in backticks, and the words to use.
ROW = re.compile(r"^\| (?P<avoid>`.*?`)(?P<scope> in tests)? \| (?P<use>.*?) \|$", re.MULTILINE)

TEXT = (".py", ".md", ".toml", ".json", ".sh", ".yml", ".yaml", ".lua", ".mako", "")


def avoided(scope: str | None) -> re.Pattern[str]:
    """Return a pattern of the words that are to be avoided everywhere (None), or in this scope only."""
    rows = [row["avoid"] for row in ROW.finditer(GLOSSARY.read_text()) if row["scope"] == scope]
    patterns = [pattern.replace(r"\|", "|") for avoid in rows for pattern in re.findall("`(.*?)`", avoid)]
    assert len(patterns) > (3 if scope else 20), "the glossary was not found"
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.splitlines()]
    # A migration that has been released is not changed any more, whatever its columns were called.
    released = ROOT.glob("migrations/versions/*")
    skipped = (GLOSSARY, ROOT / "LICENSE", ROOT / "constraints.txt", Path(__file__), *released)
    return [path for path in paths if path.suffix in TEXT and path not in skipped and path.is_file()]


def found(words: re.Pattern[str], paths: Sequence[Path]) -> str:
    """Return each place where one of these words is, in a line of its own."""
    return "\n".join(
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in paths
        for number, line in enumerate([path.name, *path.read_text().splitlines()])
        for match in words.finditer(line)
    )


def test_the_words_to_avoid_are_nowhere_but_in_the_glossary() -> None:
    assert found(avoided(None), tracked()) == ""


def test_the_words_to_avoid_in_tests_are_in_no_test() -> None:
    assert found(avoided(" in tests"), [path for path in tracked() if path.is_relative_to(ROOT / "tests")]) == ""
