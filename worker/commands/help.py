"""`bin/help`: the list of all commands."""

from collections.abc import Mapping

import rich_click as click

from worker.commands import command_line, options
from worker.commands.command_line import DONE, Command
from worker.commands.output import print_json, table

#: Every file of bin/, and what it does. A command's own help begins with the same sentence.
COMMANDS: Mapping[str, Mapping[str, str]] = {
    "Run Holdfast": {
        "up": "Run everything on this machine, until Ctrl-C.",
        "migrate": "Take the schema to the newest revision, or to another one.",
        "api": "Serve the HTTP API.",
        "grpc": "Serve reservations over gRPC.",
        "worker": "Run the workers, which deliver events and do the maintenance.",
        "scheduler": "Wake the workers regularly.",
    },
    "Operate it": {
        "doctor": "Check that nothing is oversold, lost or stuck.",
        "destinations": "Show, pause, resume or probe destinations, or change the routes.",
        "why": "Explain why an event, a reservation or a change does not happen.",
        "dead-letters": "Look at dead letters, replay them, discard them, or bury pending events.",
        "replay": "Send delivered events again.",
        "api-keys": "Create, list, replace or revoke the API keys of machines.",
        "audit": "Show who did what, and verify that nothing of it was changed.",
        "token": "Print a token of the stand-in for an identity provider that bin/up runs.",
        "rotate-keys": "Wrap the data keys of all guests by the first key of PII_KEYS.",
        "forget-guest": "Destroy the personal data of a guest, of one reservation or of several.",
        "rights": "Show which role may do what, and on whose.",
    },
    "From cron, without workers": {
        "process-outbox": "Deliver what is due, once.",
        "expire-reservations": "Expire overdue holds and make their stock available again, once.",
        "prune": "Delete what has been kept long enough, once.",
    },
    "Develop it": {
        "install": "Install Holdfast into .venv; most commands need that first.",
        "check": "Check style, spelling, types and the directions of imports.",
        "test": "Run the tests: all, fast or faults. Further arguments go to pytest.",
        "bench": "Run the benchmarks and compare them with their budgets.",
        "python": "Run the Python that has Holdfast installed.",
        "help": "List all commands.",
    },
}


@click.command("bin/help", cls=Command, examples=["bin/help", "bin/help --json", "bin/doctor --help"])
@options.as_json("commands, a list of name, topic and summary.")
def list_commands(as_json: bool) -> int:
    """List all commands."""
    if as_json:
        entries = [(name, topic, summary) for topic, names in COMMANDS.items() for name, summary in names.items()]
        print_json(commands=[{"name": f"bin/{name}", "topic": topic, "summary": text} for name, topic, text in entries])
        return DONE
    lines = [(f"  bin/{name}", summary) for names in COMMANDS.values() for name, summary in names.items()]
    aligned = iter(table(("", ""), lines)[1:])
    for topic, names in COMMANDS.items():
        click.echo(f"{topic}:")
        for _ in names:
            click.echo(next(aligned))
        click.echo()
    click.echo("Each of them has --help, except install, check, test and python.")
    return DONE


if __name__ == "__main__":
    command_line.run(list_commands)
