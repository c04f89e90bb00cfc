"""`bin/doctor`: check the invariants on a live database."""

from collections.abc import Mapping

import rich_click as click

from domain import invariants
from domain.access import audit
from domain.invariants import Finding
from domain.invariants.guests import keyed_by
from domain.privacy import key_service_of
from domain.runtime.logs import printable
from domain.runtime.settings import Settings
from worker.commands import command_line, options
from worker.commands.command_line import DONE, TROUBLE, Command
from worker.commands.output import print_json, print_wrapped, progress, rows
from worker.commands.runner import opened

MEMBERS = (
    "ok, and findings, a list of title (the invariant), violations (their number), named (the first of them),"
    " advice (what to do, or empty) and misses (what the check would not find); and audit, the number and the hash of"
    " its last seal, or null."
)


@click.command(
    "bin/doctor",
    cls=Command,
    examples=["bin/doctor", "bin/doctor --explain", "bin/doctor --json"],
    exit_codes={
        0: "every invariant holds",
        1: "an invariant is violated, or the database could not be checked",
    },
)
@click.option("--explain", is_flag=True, help="Print what each check would not find, below its line.")
@options.as_json(MEMBERS)
def doctor(explain: bool, as_json: bool) -> int:
    """Check that nothing is oversold, lost or stuck.

    It only reads, and can run at any time. It prints a line for each invariant: ok, or FAIL with the violations.
    """
    with opened("Nothing was checked.") as (db, routes):
        keys = key_service_of(Settings.load())
        with progress("Checking the invariants"), db() as session:
            findings = invariants.examine(session, routed=routes.names, of_keys=[keyed_by(keys)])
            seal = audit.last_seal(session) if len(findings) > 1 else None
    is_ok = not any(finding.violations for finding in findings)
    if as_json:
        last = seal and {"number": seal.number, "hash": seal.hash}
        print_json(ok=is_ok, findings=[_members(finding) for finding in findings], audit=last)
    else:
        for finding in findings:
            click.echo(_describe(finding))
            if explain and finding.misses:
                print_wrapped(f"Not found: {finding.misses}", " " * 6)
        if seal and is_ok:
            click.echo(f"The audit has {rows(seal.number, 'seal')}. Keep its last hash elsewhere: {seal.hash}")
    return DONE if is_ok else TROUBLE


def _members(finding: Finding) -> Mapping[str, object]:
    return {
        "title": finding.title,
        "violations": finding.violations,
        "named": list(finding.named),
        "advice": finding.advice,
        "misses": finding.misses,
    }


def _describe(finding: Finding) -> str:
    if not finding.violations:
        return f"ok    {finding.title}"
    unnamed = finding.violations - len(finding.named)
    named = ", ".join(map(printable, finding.named)) + (f" and {unnamed:,} more" if unnamed else "")
    advice = f". {finding.advice}" if finding.advice else ""
    return f"FAIL  {finding.title}; {rows(finding.violations, 'violation')}: {named}{advice}"


if __name__ == "__main__":
    command_line.run(doctor)
