"""`log:` writes one whole line an event, to standard output or to a file, even when the disk is full."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest

from domain.outbox import Delivered, Failed, NotSent, Route, Row, Unreachable
from domain.runtime.settings import ROOT
from tests.support.builders import some_settings
from worker.formats.envelope import wrap
from worker.ordering.pace import Pace
from worker.sinks.log import Log

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def some_rows(count: int, payload: str = '{"note": "Zoë\\n"}') -> Sequence[Row]:
    return [
        Row(number, uuid4(), uuid4(), "booking.created", payload, "{}", 0, NOON, None, None, NOON)
        for number in range(count)
    ]


def a_log(path: object) -> Log:
    return Log(Route(name="log", url=f"log:{path}"), some_settings(), Pace(Event()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.log"


@pytest.fixture
def log(path: Path) -> Iterator[Log]:
    log = a_log(path)
    yield log
    log.close()


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_event_is_a_line_of_json(log: Log, path: Path) -> None:
    rows = some_rows(3)

    assert log.deliver(rows) == [Delivered()] * 3

    assert [line["event_id"] for line in lines(path)] == [str(row.event_id) for row in rows]
    assert lines(path)[0]["payload"] == {"note": "Zoë\n"}


def test_lines_that_are_in_the_file_already_are_kept(path: Path) -> None:
    path.write_text('{"event_id": "old"}\n')
    log = a_log(path)

    log.deliver(some_rows(1))
    log.close()

    assert len(lines(path)) == 2


def test_without_a_path_it_writes_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    log = Log(Route(name="log", url="log:"), some_settings(), Pace(Event()))

    log.deliver(some_rows(2))
    log.close()

    assert len(capfd.readouterr().out.splitlines()) == 2
    os.fstat(1)  # standard output is still open after the sink was closed


def test_a_row_that_can_not_be_written_fails_and_only_its_aggregate_waits(path: Path) -> None:
    log = Log(Route(name="log", url=f"log:{path}", format="slot"), some_settings(), Pace(Event()))
    good, poisonous, after = some_rows(3, "{}")
    poisonous = poisonous._replace(payload='{"start": "someday"}')
    after = after._replace(aggregate_id=poisonous.aggregate_id)

    first, second, third = log.deliver([good, poisonous, after])
    log.close()

    assert first == Delivered()
    assert isinstance(second, Failed) and "someday" in second.error
    assert third == NotSent(), "it must not overtake the row that failed"
    assert [line["bookingId"] for line in lines(path)] == [str(good.aggregate_id)]


def test_a_path_that_can_not_be_opened_is_an_outage_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "events.log"
    log, rows = a_log(path), some_rows(2)
    assert log.deliver(rows) == [Unreachable("can't write to the log: No such file or directory")] * 2

    path.parent.mkdir()

    assert log.deliver(rows) == [Delivered()] * 2
    assert len(lines(path)) == 2
    log.close()


def test_a_full_disk_is_an_outage() -> None:
    log = a_log("/dev/full")

    outcomes = log.deliver(some_rows(3))
    log.close()

    assert outcomes == [Unreachable("can't write to the log: No space left on device")] * 3


def test_after_a_failed_sync_all_lines_are_sent_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux reports a failed write only once. A second sync would succeed although lines are missing."""
    faults = iter([OSError(errno.EIO, os.strerror(errno.EIO))])

    def sync(_: int) -> None:
        for fault in faults:
            raise fault

    monkeypatch.setattr(os, "fdatasync", sync)

    assert log.deliver(some_rows(3)) == [Unreachable("can't write to the log: Input/output error")] * 3
    assert log.deliver(some_rows(3)) == [Delivered()] * 3


def test_when_the_disk_has_room_again_the_lines_are_written(path: Path) -> None:
    rows = some_rows(4)
    path.symlink_to("/dev/full")
    log = a_log(path)
    assert isinstance(log.deliver(rows)[0], Unreachable)

    path.unlink()

    assert log.deliver(rows) == [Delivered()] * 4
    assert len(lines(path)) == 4
    log.close()


#: Delivers three rows to a file that may grow by one and a half lines, and then the last two without this limit.
ON_A_SMALL_DISK = """
import json, resource, signal, sys
from tests.worker.sinks.test_log import a_log, some_rows
from worker.ordering.pace import Pace

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log, rows = a_log(sys.argv[1]), some_rows(3)
print(json.dumps([str(row.event_id) for row in rows]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
print([type(outcome).__name__ for outcome in log.deliver(rows)])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print([type(outcome).__name__ for outcome in log.deliver(rows[1:])])
"""


def test_a_line_of_which_a_full_disk_took_a_part_is_written_again_whole(path: Path) -> None:
    length = len(wrap(some_rows(1)[0]).encode()) + 1

    ran = subprocess.run(
        [sys.executable, "-c", ON_A_SMALL_DISK, str(path), str(length + length // 2)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )

    ids, first, second = ran.stdout.splitlines()
    assert first == str(["Delivered", "Unreachable", "Unreachable"])
    assert second == str(["Delivered", "Delivered"])
    whole, torn, *rest = path.read_bytes().splitlines()
    # The line that was written again first stood behind the torn one, so it was written once more.
    assert len(whole) == length - 1 and len(torn) == length // 2 + length - 1
    assert [json.loads(line)["event_id"] for line in rest] == json.loads(ids)[1:]
    assert json.loads(whole)["event_id"] == json.loads(ids)[0]


def test_after_log_rotation_a_new_file_is_opened(log: Log, path: Path) -> None:
    log.deliver(some_rows(2))
    path.rename(path.with_suffix(".1"))

    assert log.deliver(some_rows(3)) == [Delivered()] * 3

    assert (len(lines(path.with_suffix(".1"))), len(lines(path))) == (2, 3)


def test_a_directory_that_was_removed_is_an_outage(log: Log, path: Path) -> None:
    shutil.rmtree(path.parent)

    (outcome,) = log.deliver(some_rows(1))

    assert outcome == Unreachable("can't write to the log: No such file or directory")


@pytest.mark.parametrize(("rows", "length"), [(50, 5_000), (10, 500_000)])
def test_lines_of_several_threads_and_processes_do_not_mix(path: Path, rows: int, length: int) -> None:
    """The end of a file may be in the middle of a long line, while another process is writing it."""
    logs = [a_log(path) for _ in range(4)]
    long = json.dumps({"note": "x" * length})
    writers = [threading.Thread(target=log.deliver, args=[some_rows(rows, long)]) for log in logs for _ in range(2)]

    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for log in logs:
        log.close()

    assert len(lines(path)) == len(writers) * rows


def test_a_pipe_whose_reader_is_gone_is_an_outage() -> None:
    end, pipe = os.pipe()
    os.close(end)
    log = a_log(f"/dev/fd/{pipe}")

    (outcome,) = log.deliver(some_rows(1))
    log.close()
    os.close(pipe)

    assert isinstance(outcome, Unreachable)


def test_a_pipe_that_nobody_reads_is_an_outage_until_somebody_does(path: Path) -> None:
    os.mkfifo(path)
    log, rows = a_log(path), some_rows(2)
    assert log.deliver(rows) == [Unreachable("can't write to the log: No such device or address")] * 2

    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    assert log.deliver(rows) == [Delivered()] * 2
    assert len(os.read(reader, 1_000_000).splitlines()) == 2
    log.close()
    os.close(reader)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_half_a_line_that_another_process_has_left_swallows_no_event(
    path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    log, rows = a_log(path), some_rows(3)
    log.deliver(rows[:1])
    with path.open("ab", buffering=0) as other:
        tears = iter([None])
        read = os.pread

        def torn_after_looking(*arguments: int) -> bytes:
            found = read(*arguments)
            for _ in tears:
                other.write(b'{"torn')
            return found

        if when == "before":
            other.write(b'{"torn')
        else:
            monkeypatch.setattr(os, "pread", torn_after_looking)

        assert log.deliver(rows[1:]) == [Delivered()] * 2

    readable = [line for line in path.read_bytes().splitlines() if not line.startswith(b'{"torn')]
    assert len(readable) == len(rows)
    assert all(json.loads(line) for line in readable)
    log.close()
