"""Every command that is written with click, by its script in bin/ and by its path: the script and the subcommand."""

from collections.abc import Iterator, Mapping, Sequence

from migrations.main import main as migrate
from worker.commands.api_keys import keys
from worker.commands.audit import commands as audit
from worker.commands.command_line import Command, Group
from worker.commands.dead_letters import dead_letters
from worker.commands.destinations import destinations
from worker.commands.doctor import doctor
from worker.commands.forget_guest import forget_guest
from worker.commands.help import list_commands
from worker.commands.outbox import process_outbox
from worker.commands.prune import prune
from worker.commands.replay import replay
from worker.commands.reservations import expire_reservations
from worker.commands.rights import rights
from worker.commands.rotate_keys import rotate_keys
from worker.commands.why import why

SCRIPTS: Mapping[str, Command] = {
    "api-keys": keys,
    "audit": audit,
    "dead-letters": dead_letters,
    "destinations": destinations,
    "doctor": doctor,
    "expire-reservations": expire_reservations,
    "forget-guest": forget_guest,
    "help": list_commands,
    "migrate": migrate,
    "process-outbox": process_outbox,
    "prune": prune,
    "replay": replay,
    "rights": rights,
    "rotate-keys": rotate_keys,
    "why": why,
}


def with_subcommands() -> Iterator[tuple[tuple[str, ...], Command]]:
    for script, command in SCRIPTS.items():
        yield (script,), command
        if isinstance(command, Group):
            for name, subcommand in command.commands.items():
                assert isinstance(subcommand, Command)
                yield (script, name), subcommand


#: With the subcommands of groups.
COMMANDS: Mapping[tuple[str, ...], Command] = dict(with_subcommands())

#: Those that do something; a group does not.
LEAVES = [path for path, command in COMMANDS.items() if not isinstance(command, Group)]

#: Every command that needs the database, with arguments that it accepts.
ACCEPTED: Mapping[tuple[str, ...], Sequence[str]] = {
    ("process-outbox",): [],
    ("expire-reservations",): [],
    ("prune",): [],
    ("doctor",): [],
    ("rotate-keys",): [],
    ("forget-guest",): ["--guest-id=guest-42"],
    ("why",): ["01939b52-3a1e-7000-8000-5c1f0e6a9d21"],
    ("replay",): ["--all", "--why=test"],
    ("api-keys", "create"): ["till", "--role=staff"],
    ("api-keys", "rotate"): ["till"],
    ("api-keys", "revoke"): ["till"],
    ("api-keys", "list"): [],
    ("audit", "list"): [],
    ("audit", "verify"): [],
    ("dead-letters", "list"): [],
    ("dead-letters", "show"): ["1"],
    ("dead-letters", "replay"): ["--all", "--why=test"],
    ("dead-letters", "discard"): ["--all", "--why=test"],
    ("dead-letters", "bury"): ["--event=01939b52-3a1e-7000-8000-5c1f0e6a9d21", "--why=test"],
    ("destinations", "list"): [],
    ("destinations", "pause"): ["shop", "--why=test"],
    ("destinations", "resume"): ["shop", "--why=test"],
    ("destinations", "probe"): ["shop", "--why=test"],
    ("destinations", "routes"): [],
    ("destinations", "use-routes"): ["--why=test"],
    ("migrate",): [],
}
