"""What belongs to a sink beside its module, and is easily forgotten: CONTRIBUTING.md lists all of it."""

import re
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest

from domain.runtime.settings import ROOT
from tests.conformance.harnesses import HARNESSES
from worker.destinations import SINKS, Kind

PROJECT: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: Mapping[str, list[str]] = PROJECT["project"]["optional-dependencies"]

#: Nobody can examine what `null:` takes, and it does nothing that a test could show.
UNTESTED = SINKS["null"]

with_an_extra = pytest.mark.parametrize("extra", sorted({kind.extra for kind in SINKS.values() if kind.extra}))


def name_of(kind: Kind) -> str:
    """Return the name of the module or package that a sink has in worker/sinks."""
    return kind.module.removeprefix("worker.sinks.").partition(".")[0]


def test_every_sink_has_a_harness_so_that_the_conformance_suite_runs_on_it() -> None:
    tested = {SINKS[harness.scheme] for harness in HARNESSES.values()}

    assert set(SINKS.values()) - tested == {UNTESTED}, "add a harness to tests/conformance/harnesses.py"


@pytest.mark.parametrize("name", sorted({name_of(kind) for kind in SINKS.values() if kind != UNTESTED}))
def test_every_sink_has_tests_of_its_own(name: str) -> None:
    assert list((ROOT / "tests" / "worker" / "sinks").glob(f"test_{name}*.py"))


@with_an_extra
def test_the_extra_of_a_sink_is_part_of_the_extra_all(extra: str) -> None:
    (everything,) = EXTRAS["all"]

    assert extra in re.split(r"[\[\],]", everything)


@with_an_extra
def test_the_domain_may_not_import_the_library_of_a_sink(extra: str) -> None:
    (contract,) = [one for one in PROJECT["tool"]["importlinter"]["contracts"] if "PostgreSQL" in one["name"]]
    libraries = {re.split(r"[^\w-]", requirement)[0].replace("-", "_") for requirement in EXTRAS[extra]}

    assert libraries
    assert libraries <= {*contract["forbidden_modules"]}
