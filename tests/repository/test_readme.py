"""The README and the pages of docs/: what they show happens, and what they list is complete and exists."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from api.app import ROUTES
from api.http.problems import ALL
from domain.access import RIGHTS, Role
from domain.events.validation import SCHEMAS
from domain.invariants import INVARIANTS, schema
from domain.invariants.guests import keyed_by
from domain.invariants.outbox import routed_only
from domain.outbox.operations.status_cache import FIGURES
from domain.runtime.metrics import registry_of, render
from domain.runtime.settings import ROOT, Settings
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from worker.destinations import SINKS
from worker.formats import FORMATS

README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]

#: `bin/up` has started, and after Ctrl-C has ended, well within these times, or something hangs.
START_SECONDS, STOP_SECONDS = 90.0, 40.0

FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]*))?\)")


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return FENCED.sub("", page.read_text())


def rows(page: str, head: str) -> Sequence[Sequence[str]]:
    """Return the cells of a table in docs/, row by row and without its head, which begins with that text."""
    lines = (DOCS / page).read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(head))
    table = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


#: How the table of rights in docs/access.md begins.
TABLE_OF_RIGHTS = "| operation | guest"


def quoted(cell: str) -> str:
    """Return what is between the first backticks of a cell."""
    return cell.split("`")[1]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes from the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_can_be_read_in_a_few_minutes() -> None:
    assert 120 <= len(README.read_text().splitlines()) <= 210


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    links = [link for link in LINK.finditer(prose(page)) if "://" not in link["path"]]

    assert links
    for link in links:
        target = (page.parent / link["path"]).resolve() if link["path"] else page
        assert target.exists(), link["path"]
        assert not link["anchor"] or link["anchor"] in anchors(target), link[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_mentions_exists(page: Path) -> None:
    mentioned = re.findall(r"(?<!\.venv/)\bbin/([a-z][a-z-]*)", page.read_text())

    assert [name for name in mentioned if not os.access(ROOT / "bin" / name, os.X_OK)] == []


def test_every_setting_is_documented_with_its_default_and_nothing_else_is() -> None:
    variables = rows("configuration.md", "| variable | default | values |")
    documented = {quoted(name): default.strip("`") for name, default, *_ in variables}

    assert documented == {str(field.alias): _default(name) for name, field in Settings.model_fields.items()}


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if field.is_required():
        return "required"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    if isinstance(field.default, tuple):
        return ", ".join(map(str, field.default)) or "none"
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default or "none")


def test_every_problem_is_documented_with_its_status() -> None:
    documented = re.findall(r"^- (\d+) \[(\S+)\]", (DOCS / "problems.md").read_text(), re.MULTILINE)

    assert documented == [(str(one.status), one.slug) for one in ALL]


def test_the_output_of_doctor_shows_every_invariant() -> None:
    shown = re.search(r"^\$ bin/doctor\n(.*?)^```", (DOCS / "operating.md").read_text(), re.MULTILINE | re.DOTALL)
    of_settings = (routed_only([]).title, keyed_by(None).title)
    titles = [schema.TITLE, *(invariant.title for invariant in INVARIANTS), *of_settings]

    assert shown is not None
    *lines, last = shown[1].splitlines()
    assert lines == [f"ok    {title}" for title in titles]
    assert last.startswith("The audit has ")


def test_every_operation_is_documented() -> None:
    documented = re.findall(r"^\| `([A-Z]+) (/\S*?(?:\{[^}]*\}\S*?)*)`", (DOCS / "api.md").read_text(), re.MULTILINE)
    operations = {(method, path) for handler in ROUTES for method in handler.http_methods for path in handler.paths}

    assert set(map(_without_names, documented)) == set(map(_without_names, operations))


def _without_names(operation: tuple[str, str]) -> tuple[str, str]:
    method, path = operation
    return method, re.sub(r"\{[^}]*\}", "{}", path)


def test_every_test_that_the_contracts_name_is_there() -> None:
    named = re.findall(r"\[`(test_\w+)`\]\(\.\./(\S+)\)", (DOCS / "contracts.md").read_text())

    assert named
    assert [name for name, path in named if f"def {name}(" not in (ROOT / path).read_text()] == []


def test_every_metric_is_documented() -> None:
    from api import app, connections  # noqa: F401  # importing them registers them
    from api.grpc import calls  # noqa: F401
    from api.http.edge import admission, fair_shares, large_bodies  # noqa: F401
    from worker.telemetry import metrics as worker_metrics  # noqa: F401

    counted = re.findall(r"^# TYPE (holdfast_\w+)", render(registry_of()).decode(), re.MULTILINE)
    read = [f"holdfast_outbox_{figure}" for figure in [*FIGURES, "up"]]

    assert sorted(quoted(row[0]) for row in rows("operating.md", "| metric |")) == sorted([*counted, *read])


def test_every_event_type_is_documented_with_its_schema() -> None:
    types = rows("destinations.md", "| type | when | schema |")
    documented = {(quoted(name), LINK.findall(schema)[0][0]) for name, _, schema in types}

    assert documented == {
        (schema.name.removesuffix(".v1.json"), f"../{schema.relative_to(ROOT)}") for schema in SCHEMAS.glob("*.json")
    }


def test_every_kind_of_destination_and_every_format_is_documented() -> None:
    kinds = " ".join(row[0] + row[1] for row in rows("destinations.md", "| URL |"))

    assert set(re.findall(r"`(\w+):", kinds)) == {*SINKS}
    assert {quoted(row[0]) for row in rows("destinations.md", "| `format` |")} == {*FORMATS}


@pytest.mark.slow
@pytest.mark.xdist_group("readme")
def test_the_lines_of_the_readme_do_what_it_shows(tmp_path: Path) -> None:
    """Runs `bin/up` and every curl line of the README, and compares the answers with those that it shows."""
    reserve, read, again, time_of_rooms, over_grpc, received, booking, slot, rights = _shown()

    with _up(tmp_path) as run:
        made = json.loads(run(reserve.line))
        assert made["status"] == "PENDING"
        reserve.compare(json.dumps(made, separators=(",", ":")))
        confirmed = wait_until("it is confirmed", lambda: _if_it_has('"CONFIRMED"', run(read.line)))
        assert json.loads(confirmed)["reservations"][0]["id"] == made["id"]
        read.compare(confirmed)

        repeated = run(again.line)
        assert "idempotency-replayed: true" in repeated.lower()
        again.compare(repeated)
        assert len(json.loads(run(read.line.replace("limit=1", "limit=10")))["reservations"]) == 1

        rooms = run(time_of_rooms.line)
        time_of_rooms.compare(rooms)
        suite, refused, double = map(json.loads, rooms.splitlines())
        assert {**double, "start": suite["start"], "end": suite["end"]} == double
        assert double["sku"] in {one["sku"] for one in refused["alternatives"]}
        over_grpc.compare(run(over_grpc.line))
        booking.compare(run(booking.line))
        slot.compare(run(slot.line))
        rights.compare(run(rights.line))
        received.compare(wait_until("all events are received", lambda: _if_it_has("confirmed", run(received.line))))


def _if_it_has(word: str, answer: str) -> str | None:
    return answer if word in answer else None


class Shown:
    """A line of the README, and what it prints there."""

    def __init__(self, line: str, output: str) -> None:
        self.line = line
        self._output = output

    def compare(self, real: str) -> None:
        """Require that the real output is the one that the README shows, but for ids, numbers and what is cut off."""
        real_lines = _alike(real).splitlines()
        shown_lines = [_alike(line.partition(" …")[0]) for line in self._output.splitlines()]
        assert len(real_lines) == len(shown_lines), real
        for shown, line in zip(shown_lines, real_lines, strict=True):
            assert line.strip().startswith(shown)


def _alike(text: str) -> str:
    """Return a text with `#` for each id and each number."""
    return re.sub("[0-9a-f-]*[0-9][0-9a-f-]*", "#", text.strip())


def _shown() -> Sequence[Shown]:
    blocks = re.findall(r"```sh\n(.*?)```\n(?:\n```text\n(.*?)```)?", README.read_text(), re.DOTALL)
    assert [line.strip() for line, _ in blocks[:2]] == ["bin/up", "bin/test"]
    assert all(
        line.startswith(("curl ", "time=", "guest=", "provider=", "bin/rights ")) and output
        for line, output in blocks[2:]
    )
    # A variable that a block has set is there for those that follow, as in one terminal.
    (guest,) = re.findall("^guest=.*\n", blocks[2][0], re.MULTILINE)
    return [Shown(line if line.startswith(guest) else guest + line, output) for line, output in blocks[2:]]


@contextmanager
def _up(home: Path) -> Iterator[Callable[[str], str]]:
    """Run `bin/up` on servers of its own. Yields a function that runs a line of the README and returns its output."""
    ports = {"8000": str(free_port()), "8001": str(free_port()), "50051": str(free_port())}
    variables = {
        "HOLDFAST_HOME": str(home),
        "PORT": ports["8000"],
        "PARTNERS_PORT": ports["8001"],
        "GRPC_PORT": ports["50051"],
        "GRPC_METRICS_PORT": "0",
        "WORKER_METRICS_PORT": "0",
        "SCHEDULER_METRICS_PORT": "0",
    }
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [ROOT / "bin" / "up"], env=_bare() | variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{ports['8000']}/health/ready", home / "log")
        yield lambda line: _run(
            re.sub(r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{ports[found[1]]}", line), _bare() | variables
        )
    finally:
        exit_code = _interrupt(process)
    assert exit_code == 0, (home / "log").read_text()


def _bare() -> dict[str, str]:
    """Return the environment of a stranger, which names no servers."""
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_ready(url):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _run(line: str, environment: Mapping[str, str]) -> str:
    """Run a line with this environment. A client in Python takes the place of grpcurl where that is missing."""
    instead = "" if shutil.which("grpcurl") else f'grpcurl() {{ {sys.executable} -m tests.support.grpcurl "$@"; }}\n'
    command = ["bash", "-c", instead + line]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False).stdout


def _interrupt(process: "subprocess.Popen[bytes]") -> int:
    """Press Ctrl-C, and return the exit code. What does not end then is killed."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        return process.wait()


def test_the_table_of_rights_is_documented_as_it_is() -> None:
    documented = {
        quoted(name): dict(zip(Role, whose, strict=True)) for name, *whose in rows("access.md", TABLE_OF_RIGHTS)
    }

    assert documented == {name: {role: right.get(role, "") for role in Role} for name, right in RIGHTS.items()}
