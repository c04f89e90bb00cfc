"""`bin/token`: a token of the stand-in for an identity provider, to try requests with."""

import os

import httpx
import rich_click as click
from dotenv import load_dotenv

from deploy.home import ENV_FILE
from domain.access import Role
from worker.commands import command_line
from worker.commands.command_line import DONE, WRONG_USAGE, Command
from worker.commands.runner import fail

#: Who the bearer is if nobody says so. The others are called by their role.
NAMES = {Role.GUEST: "ann", Role.PROVIDER: "rita"}

TIMEOUT_SECONDS = 5.0


@click.command(
    "bin/token",
    cls=Command,
    examples=['curl -H "Authorization: Bearer $(bin/token --role staff)" http://127.0.0.1:8000/reservations'],
    exit_codes={2: "wrong usage, or bin/up does not run"},
)
@click.option(
    "--role",
    required=True,
    type=click.Choice([role.value for role in Role]),
    help="What its bearer is (see bin/rights).",
)
@click.option("--name", help="The subject: the id of the guest, or who is in histories and audits.")
@click.option("--venue", "venues", multiple=True, metavar="ID", help="A venue of a business (default seaview).")
@click.option("--provider", metavar="ID", help="The id of a provider (default rita).")
def token(role: str, name: str | None, venues: tuple[str, ...], provider: str | None) -> int:
    """Print a token of the stand-in for an identity provider that bin/up runs. It is good for eight hours."""
    asked: dict[str, object] = {"subject": name or NAMES.get(Role(role), role), "role": role}
    if role == Role.BUSINESS:
        asked["venues"] = venues or ("seaview",)
    if role == Role.PROVIDER:
        asked["provider_id"] = provider or "rita"
    click.echo(_token(asked))
    return DONE


def _token(asked: dict[str, object]) -> str:
    """Return a token of the stand-in. If there is none, end the command."""
    url = f"{_address()}/tokens"
    try:
        response = httpx.post(url, json=asked, timeout=TIMEOUT_SECONDS, trust_env=False)
        response.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error).partition("\n")[0]
        fail(
            f"There is no token: the stand-in for an identity provider gave none at {url} ({reason}). bin/up runs it:"
            " start that first. If it runs, PARTNERS_PORT must be the same here as there.",
            WRONG_USAGE,
        )
    return str(response.json()["token"])


def _address() -> str:
    load_dotenv(ENV_FILE)
    return f"http://127.0.0.1:{os.environ.get('PARTNERS_PORT', '8001')}"


if __name__ == "__main__":
    command_line.run(token)
