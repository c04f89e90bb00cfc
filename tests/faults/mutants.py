"""Takes each guard of the outbox away in turn, in a copy of this tree, and shows that the suite turns red.

`bin/python -m tests.faults.mutants [GUARD…]`, where GUARD is one of fence, order, skip-locked
and event-id; all of them if none is named. It takes some twenty seconds a mutant, prints a
table, and exits 1 if the removal of a guard is not noticed. It is not part of CI.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from domain.runtime.settings import ROOT
from tests.faults.guards import MUTANTS, SUITES, Mutant

#: What a copy can do without, or must not share.
LEFT_OUT = (".venv", ".git", ".holdfast", "__pycache__", ".*_cache", ".hypothesis", "build", "*.egg-info")

#: What pytest exits with: all passed, and some failed. Anything else says that it could not run.
GREEN, RED = 0, 1

#: A test that a mutant makes wait for ever is red after this long.
TEST_SECONDS = 60


@dataclass(frozen=True)
class Verdict:
    """How a run of tests ended; `noticed_by` is the first test that failed."""

    status: int
    noticed_by: str
    output: str


def main() -> int:
    """Run the mutants of the guards that are named. Return 1 if one is not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("guards", nargs="*", metavar="GUARD", help=f"{', '.join(SUITES)}; all if none is named")
    guards = parser.parse_args().guards or list(SUITES)
    if strangers := set(guards) - SUITES.keys():
        parser.error(f"there is no guard {min(strangers)!r}; those that there are: {', '.join(SUITES)}")
    mutants = [mutant for mutant in MUTANTS if mutant.guard in guards]
    with _copied() as tree:
        for mutant in mutants:
            _mutated(tree, mutant)
        _check_that_it_is_green(tree, guards)
        verdicts = [(mutant, _verdict_on(tree, mutant)) for mutant in mutants]
    Console().print(_table(verdicts))
    return 0 if all(verdict.status == RED for _, verdict in verdicts) else 1


@contextmanager
def _copied() -> Iterator[Path]:
    """Copy this tree to a folder that is gone after the block. It shares the installed packages."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
        (tree / ".venv").symlink_to((ROOT / ".venv").resolve())
        yield tree


def _check_that_it_is_green(tree: Path, guards: Sequence[str]) -> None:
    """A suite that is red already shows nothing."""
    verdict = _run(tree, sorted({name for guard in guards for name in SUITES[guard]}))
    if verdict.status != GREEN:
        sys.exit(f"The suite is not green with all guards in place, so nothing can be shown.\n{verdict.output}")


def _mutated(tree: Path, mutant: Mutant) -> str:
    """Return the source of the mutant's file without the guard, or end and say that the guard is not where it was."""
    source = (tree / mutant.path).read_text()
    if (found := source.count(mutant.text)) != 1:
        sys.exit(f"{mutant.path} has this text {found} times, not once; bring the mutant up to date:\n{mutant.text}")
    return source.replace(mutant.text, mutant.without)


def _verdict_on(tree: Path, mutant: Mutant) -> Verdict:
    path = tree / mutant.path
    source = path.read_text()
    path.write_text(_mutated(tree, mutant))
    try:
        verdict = _run(tree, SUITES[mutant.guard])
    finally:
        path.write_text(source)
    if verdict.status not in (GREEN, RED):
        sys.exit(f"The mutant {mutant.says!r} can't be run, so it shows nothing.\n{verdict.output}")
    print(f"{mutant.guard}: {mutant.says}: {_colour(verdict)}", file=sys.stderr, flush=True)
    return verdict


def _run(tree: Path, names: Sequence[str]) -> Verdict:
    tests = [f"tests/{name}.py" for name in names]
    options = ["-x", "--timeout", str(TEST_SECONDS), "--tb", "line", "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = ["bin/python", "-m", "pytest", *options, *tests]
    ended = subprocess.run(command, check=False, cwd=tree, env=environment, capture_output=True, text=True)
    failed = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", ended.stdout, re.MULTILINE)
    return Verdict(ended.returncode, failed[1] if failed else "", ended.stdout + ended.stderr)


def _colour(verdict: Verdict) -> str:
    return "red" if verdict.status == RED else "NOT NOTICED"


def _table(verdicts: Sequence[tuple[Mutant, Verdict]]) -> Table:
    table = Table("guard", "taken away", "where", "the suite is", "noticed first by")
    for mutant, verdict in verdicts:
        noticed_by = verdict.noticed_by.replace(".py::", ": ").replace("_", " ")
        table.add_row(mutant.guard, mutant.says, mutant.path, _colour(verdict), noticed_by)
    return table


if __name__ == "__main__":
    sys.exit(main())
