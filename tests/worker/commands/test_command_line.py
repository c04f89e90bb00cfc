"""All commands look alike: help that starts nothing, exit codes, the version, and suggestions for a wrong option."""

import subprocess
from importlib.metadata import version

import pytest
from click.testing import CliRunner, Result

from domain.runtime.settings import ROOT
from tests.support.builders import Db, an_item, an_overdue_hold
from tests.support.commands import MODULES, bare, on_one_line, run_command
from tests.support.outbox import an_aggregate, recorded_for, with_shop
from tests.support.refusals import everything
from tests.worker.commands.every_command import ACCEPTED, COMMANDS, LEAVES, SCRIPTS
from worker.commands.command_line import COLUMNS


def invoke(script: str, *arguments: str) -> Result:
    """Run a command in this process, without any settings."""
    settings = {"DATABASE_URL": None, "REDIS_URL": None, "HOLDFAST_ROUTES": None}
    return CliRunner().invoke(SCRIPTS[script], arguments, prog_name=f"bin/{script}", env=settings)


def test_these_are_all_commands_that_are_written_with_click() -> None:
    scripts = {path.name: path.read_text() for path in (ROOT / "bin").iterdir()}

    assert SCRIPTS.keys() == {
        name for name, text in scripts.items() if "worker.commands" in text or "migrations" in text
    }
    assert set(ACCEPTED) | {("help",), ("rights",)} == set(LEAVES)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_starts_nothing_and_ends_with_examples_and_exit_codes(path: tuple[str, ...]) -> None:
    run = invoke(*path, *ACCEPTED.get(path, []), "--help")

    assert (run.exit_code, run.stderr) == (0, "")
    name = f"bin/{' '.join(path)}"
    usage, _, ending = run.stdout.partition("Examples:\n")
    assert usage.startswith(f"Usage: {name} ")
    examples, _, codes = ending.partition("Exit codes:\n")
    assert examples.startswith("  bin/") and f"  {name}" in examples
    assert [line.split()[0] for line in codes.splitlines() if line[:3].strip()] == ["0", "1", "2"]
    assert all(len(line.rstrip()) <= COLUMNS for line in run.stdout.splitlines())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_describes_every_argument_and_every_option(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]

    assert command.help
    assert [one.name for one in command.params if not getattr(one, "help", None)] == []


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_an_unknown_option_is_refused_with_a_suggestion(path: tuple[str, ...]) -> None:
    run = invoke(*path, *ACCEPTED.get(path, []), "--jsn")

    assert (run.exit_code, run.stdout) == (2, "")
    message = on_one_line(run.stderr)
    assert "No such option '--jsn'" in message and "Did you mean" in message and "'--json'" in message
    assert f"Try 'bin/{' '.join(path)} --help' for help" in message


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_an_argument_that_is_not_text_is_refused(path: tuple[str, ...]) -> None:
    run = invoke(*path, *ACCEPTED.get(path, []), "--why=ROOM\udcff\udcfe")

    assert (run.exit_code, run.stdout) == (2, "")
    assert r"The argument '--why=ROOM\xff\xfe' is not text in UTF-8." in on_one_line(run.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["process-outbox", "expire-reservations", "prune", "doctor"])
def test_with_an_unknown_option_nothing_is_done(db: Db, script: str) -> None:
    shop = with_shop(db)
    an_overdue_hold(shop, an_item(db))
    recorded_for(shop, an_aggregate())
    before = everything(db)

    run = run_command(script, "--jsn")

    assert (run.returncode, run.stdout) == (2, "")
    assert everything(db) == before


@pytest.mark.slow
@pytest.mark.parametrize("script", MODULES)
def test_every_command_starts_from_bin(script: str) -> None:
    run = subprocess.run([ROOT / "bin" / script, "--version"], cwd="/", env=bare({}), capture_output=True, check=True)

    assert run.stdout.decode() == f"holdfast {version('holdfast')}\n"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_the_version_of_the_package(path: tuple[str, ...]) -> None:
    run = invoke(*path, "--version")

    assert (run.exit_code, run.stdout, run.stderr) == (0, f"holdfast {version('holdfast')}\n", "")


@pytest.mark.parametrize("script", ["dead-letters", "destinations"])
def test_a_group_without_a_subcommand_shows_its_help(script: str) -> None:
    run = invoke(script)

    assert (run.exit_code, run.stdout) == (2, "")
    assert run.stderr.startswith(f"Usage: bin/{script} ") and "  list " in run.stderr


def test_a_misspelt_subcommand_is_refused_with_a_suggestion() -> None:
    run = invoke("dead-letters", "lst")

    assert (run.exit_code, run.stdout) == (2, "")
    assert "No such command 'lst'. Did you mean 'list'?" in on_one_line(run.stderr)


@pytest.mark.parametrize("limit", ["0", "all"])
@pytest.mark.parametrize("script", ["process-outbox", "expire-reservations"])
def test_a_limit_that_is_not_a_positive_number_is_refused(script: str, limit: str) -> None:
    run = invoke(script, f"--limit={limit}")

    assert run.exit_code == 2
    assert "--limit" in run.stderr and "Traceback" not in run.stderr


#: Libraries that only a process that delivers or serves needs. Each takes a noticeable part of a second to import.
HEAVY = {"apscheduler", "boto3", "confluent_kafka", "dramatiq", "granian", "httpx", "litestar", "pika", "redis"}


@pytest.mark.slow
def test_no_command_imports_a_library_that_it_does_not_use() -> None:
    modules = {command.callback.__module__ for command in SCRIPTS.values() if command.callback}

    imported = subprocess.run(
        [ROOT / "bin" / "python", "-c", f"import sys, {', '.join(modules)}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "worker.commands.why" in imported.stdout.split()
    assert HEAVY.isdisjoint(imported.stdout.split())
