"""How keys say things: on 100 columns, with instants in UTC."""

import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime

#: What fits on any operator's terminal.
COLUMNS = 100


def instant(moment: datetime | None) -> str:
    """Return an instant in UTC to the second, which is as an option takes it."""
    return "-" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact(moment: datetime) -> str:
    """Return an instant in UTC with all that it has, for where a second makes a difference."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def rows(number: int, what: str = "row") -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def plain(text: str | None) -> str:
    """Return what a server said in one line without what would set a terminal going."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text or "").split())


def wrapped(text: str, indent: str = "") -> str:
    """Return lines that fit. What begins a line of its own, such as a command to copy, still does."""
    return "\n".join(_filled(line, indent) for line in text.splitlines())


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
    """Return aligned lines: columns of numbers to the right, all else to the left."""
    columns = list(zip(head, *lines, strict=True))
    return [
        "  ".join(_aligned(cell, column) for cell, column in zip(line, columns, strict=True)).rstrip()
        for line in (head, *lines)
    ]


def _aligned(cell: str, column: Sequence[str]) -> str:
    width = max(map(len, column))
    is_numeric = all(other.rstrip("+").replace(",", "").isdigit() for other in column[1:])
    return cell.rjust(width) if is_numeric else cell.ljust(width)
