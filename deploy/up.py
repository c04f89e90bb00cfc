"""`bin/up`: everything on this machine, with one command, from nothing."""

import os
import shlex
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack

import honcho.manager
import httpx
from honcho.environ import parse_procfile

from api.main import insist_on_free
from deploy.demo import seed
from deploy.embedded import PostgreSQL, RedisServer
from domain.runtime.settings import HOME, ROOT, Settings, refuse_to_start

#: Every process ends within 10 s of SIGTERM; one that has not by then hangs.
honcho.manager.KILL_WAIT = 11

#: Everything is up well within this time, or something is wrong.
READY_SECONDS = 60.0

#: What the embedded servers and the stand-in partners set, unless the environment does.
ENV_FILE = HOME / "env"


def main() -> int:
    """Start what is missing, migrate, seed, and run all processes until Ctrl-C."""
    host, port = os.environ.get("HOST") or "127.0.0.1", _port("PORT", 8000)
    for taken in (port, _port("PARTNERS_PORT", port + 1)):
        insist_on_free(host, taken)
    with ExitStack() as running:
        ENV_FILE.unlink(missing_ok=True)  # what an earlier run wrote holds no more
        HOME.mkdir(parents=True, exist_ok=True)
        given = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL", "BROKER_URL") if name in os.environ}
        environment = _servers(running, given) | _partners(_port("PARTNERS_PORT", port + 1))
        os.environ.update(environment)
        settings = Settings.load()
        ENV_FILE.touch(mode=0o600)  # there may be a password in it
        ENV_FILE.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items()))
        running.callback(ENV_FILE.unlink, missing_ok=True)
        seed()
        return _run(settings)


def _servers(running: ExitStack, given: Mapping[str, str]) -> dict[str, str]:
    """Start the servers that the environment does not name, and have them stopped at the end."""
    environment = dict(given)
    if "DATABASE_URL" not in given:
        postgresql = PostgreSQL(HOME / "postgresql")
        running.callback(postgresql.stop)
        environment["DATABASE_URL"] = postgresql.url
    if "REDIS_URL" not in given and "BROKER_URL" not in given:
        redis = RedisServer(HOME / "redis")
        running.callback(redis.stop)
        environment["REDIS_URL"] = redis.url
    return environment


def _port(variable: str, default: int) -> int:
    written = os.environ.get(variable) or str(default)
    if not written.isdigit() or not 0 < int(written) < 65_536:
        refuse_to_start(f"{variable}: {written!r} is no port; it must be a number from 1 to 65535.")
    return int(written)


def _partners(port: int) -> dict[str, str]:
    """Point at the stand-in for the outside world, unless the environment names a real one."""
    defaults = {
        "PARTNERS_PORT": str(port),
        "CONFIRMATION_URL": f"http://127.0.0.1:{port}/confirmations",
        "HOLDFAST_ROUTES": str(ROOT / "examples" / "partners" / "routes.toml"),
        "WEBHOOK_PRIVATE_NETWORKS": "127.0.0.0/8",
    }
    return {name: os.environ.get(name, default) for name, default in defaults.items()}


def _run(settings: Settings) -> int:
    manager = honcho.manager.Manager()
    for name, command in parse_procfile((ROOT / "Procfile").read_text()).processes.items():
        if name != "release":
            # Without `exec` a shell would stand between, and end before what it runs.
            manager.add_process(name, f"exec {command}", cwd=str(ROOT), env=dict(os.environ))
    partners = f"exec bin/python -m examples.partners.app --port {os.environ['PARTNERS_PORT']}"
    manager.add_process("partners", partners, cwd=str(ROOT), env=dict(os.environ))
    threading.Thread(target=_welcome, args=[settings], daemon=True).start()
    manager.loop()
    stopped_by_hand = manager.returncode in (130, 143)
    return 0 if stopped_by_hand else manager.returncode or 1


def _welcome(settings: Settings) -> None:
    """Say where things are as soon as they answer."""
    url = f"http://{settings.host}:{settings.port}"
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health/ready").is_success:
                break
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    else:
        print(f"\nHoldfast does not answer at {url} yet. The lines above say why.\n", flush=True)
        return
    print(WELCOME.format(url=url, partners=os.environ["CONFIRMATION_URL"], state=HOME), flush=True)


WELCOME = """
Holdfast is up.

  API         {url}          try its operations in a browser: {url}/schema
  partners    {partners}   a stand-in for the outside world
  state       {state}   the database, kept for the next time

Reserve two of the demo rooms, and look again a second later: PENDING has become CONFIRMED.

  curl -s {url}/reservations -H 'Content-Type: application/json' -H 'Idempotency-Key: first' \\
       -d '{{"sku": "ROOM-DOUBLE", "quantity": 2}}'
  curl -s "{url}/reservations?limit=1"

Ctrl-C stops everything and keeps the data.
"""


if __name__ == "__main__":
    sys.exit(main())
