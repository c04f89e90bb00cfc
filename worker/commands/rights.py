"""`bin/rights`: which role may do what."""

import rich_click as click

from domain.access import RIGHTS, Role
from worker.commands import command_line, options
from worker.commands.command_line import DONE, Command
from worker.commands.output import print_json, table


@click.command("bin/rights", cls=Command, examples=["bin/rights", "bin/rights --json"])
@options.as_json("rights: for each operation, by role, on whose it may be used: own, own venues, own providers or all.")
def rights(as_json: bool) -> int:
    """Show which role may do what, and on whose."""
    if as_json:
        print_json(rights={operation: dict(right) for operation, right in RIGHTS.items()})
        return DONE
    head = ("OPERATION", *(role.upper() for role in Role))
    for line in table(head, [(name, *(right.get(role, "-") for role in Role)) for name, right in RIGHTS.items()]):
        click.echo(line)
    return DONE


if __name__ == "__main__":
    command_line.run(rights)
