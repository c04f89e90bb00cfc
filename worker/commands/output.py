"""What commands print: text on 100 columns with instants in UTC, or one JSON object; and progress bars."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from worker.commands.command_line import COLUMNS


def print_json(**members: object) -> None:
    """Print one JSON object on one line. Instants are RFC 3339 timestamps in UTC."""
    click.echo(json.dumps(members, default=_plain_value))


def _plain_value(value: object) -> str:
    if isinstance(value, datetime):
        return exact(value)
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} can't be written as JSON")


def instant(moment: datetime | None) -> str:
    """Return an instant in UTC to the second, as an option accepts it."""
    return "-" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact(moment: datetime) -> str:
    """Return an instant in UTC to the microsecond, for where a second makes a difference."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def rows(number: int, noun: str = "row") -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def print_wrapped(text: str, indent: str = "") -> None:
    """Print text in lines that fit. A line of the text begins a new line, so that a command in it can be copied."""
    click.echo("\n".join(_filled(line, indent) for line in text.splitlines()))


def _filled(line: str, indent: str) -> str:
    return textwrap.fill(
        line,
        COLUMNS,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Return aligned lines: columns of numbers to the right, all others to the left."""
    columns = list(zip(head, *lines, strict=True))
    return [
        "  ".join(_aligned(cell, column) for cell, column in zip(line, columns, strict=True)).rstrip()
        for line in (head, *lines)
    ]


def _aligned(cell: str, column: Sequence[str]) -> str:
    width = max(map(len, column))
    is_numeric = all(other.rstrip("+").replace(",", "").isdigit() for other in column[1:])
    return cell.rjust(width) if is_numeric else cell.ljust(width)


class Advance(Protocol):
    """Shows how far the work has come: the number that is done, or another text."""

    def __call__(self, done: int = 0, text: str | None = None) -> None: ...


@contextmanager
def progress(text: str, total: int | None = None) -> Iterator[Advance]:
    """Show a progress bar on standard error while the block runs, on a terminal only. Without a total it pulses."""
    console = Console(stderr=True)
    measures = (TimeElapsedColumn(),) if total is None else (MofNCompleteColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), *measures)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=total)
        yield lambda done=0, text=None: bar.update(task, completed=done, description=text)
