"""The words of the glossary in CONTRIBUTING.md: the private ones are used nowhere else."""

import re
import subprocess
from pathlib import Path

from domain.runtime.settings import ROOT

GLOSSARY = ROOT / "CONTRIBUTING.md"

#: Each row of the table has patterns of words to avoid, in backticks, and the words to use.
ROW = re.compile(r"^\| (?P<avoid>`.*?`) \| (?P<use>.*?) \|$", re.MULTILINE)

TEXT = (".py", ".md", ".toml", ".json", ".sh", ".yml", ".yaml", ".lua", ".mako", "")


def avoided() -> list[str]:
    patterns = [
        pattern for row in ROW.finditer(GLOSSARY.read_text()) for pattern in re.findall("`(.*?)`", row["avoid"])
    ]
    assert len(patterns) > 20, "the glossary was not found"
    return [pattern.replace(r"\|", "|") for pattern in patterns]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.splitlines()]
    # A migration that has been released is not changed any more, whatever its columns were called.
    released = ROOT.glob("migrations/versions/*")
    skipped = (GLOSSARY, ROOT / "LICENSE", ROOT / "constraints.txt", Path(__file__), *released)
    return [path for path in paths if path.suffix in TEXT and path not in skipped and path.is_file()]


def test_the_words_to_avoid_are_nowhere_but_in_the_glossary() -> None:
    words = re.compile("|".join(f"(?:{pattern})" for pattern in avoided()), re.IGNORECASE)

    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in tracked()
        for number, line in enumerate([path.name, *path.read_text().splitlines()])
        for match in words.finditer(line)
    ]

    assert found == [], "\n".join(found)
