"""An API outlives the death of any of its processes, and none of them outlives the API."""

import signal
import subprocess
from collections.abc import Callable

import pytest

from domain.runtime.processes.place import TRY_AGAIN_SECONDS
from domain.runtime.processes.restarts import CRASH_LOOP, PAUSES_SECONDS
from domain.runtime.settings import ROOT
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.cluster.processes import Api, Process, is_alive, kill, kill_until
from tests.proofs.conftest import Open
from tests.proofs.load import Load
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

#: What the documentation says of every process.
GONE_WITHIN_SECONDS = 10.0

ANOTHER_ROUTE = '\n[[destination]]\nname = "audit"\nurl = "null:"\n'


@pytest.fixture
def cluster(open_cluster: Open) -> Cluster:
    return open_cluster(WEB_CONCURRENCY="2")


def message_of(api: Process, event: str) -> str:
    """Return what an API has last said by this event, as soon as it has said it or has ended."""
    wait_until(f"{event} is logged", lambda: api.events(event) or not api.is_running())
    assert api.events(event), api.log.read_text()
    said: str = api.events(event)[-1]["message"]
    return said


def break_the_file(cluster: Cluster) -> None:
    (cluster.home / "routes.toml").write_text("[[destination]\nbroken")


def put_other_routes_in_force(cluster: Cluster) -> None:
    use_routes(cluster, ANOTHER_ROUTE)


def use_routes(cluster: Cluster, further: str) -> None:
    """Put the routes of the file and these in force, as a deployment does whose file has them."""
    file = cluster.home / "further.toml"
    file.write_text((cluster.home / "routes.toml").read_text() + further)
    command = ["bin/destinations", "use-routes", "--why", "a release"]
    assert cluster.start("routes", *command, HOLDFAST_ROUTES=str(file)).popen.wait(PATIENCE_SECONDS) == 0


def test_a_process_that_dies_again_and_again_takes_no_other_along(cluster: Cluster, seed: int) -> None:
    api = cluster.api().ready()
    untouched = min(api.process.forked(2))

    with Load([api.port], [cluster.an_item(100_000).id], seed) as load:
        load.wait(answers=20)
        kill_until(api.process, lambda: api.process.events("api.crash_loop"), but=[untouched])
        assert api.process.is_running(), api.process.log.read_text()
        load.wait(answers=20)
        assert untouched in api.process.forked(2)
        load.wait(answers=20)

    assert "The others work on" in message_of(api.process, "api.crash_loop")
    deaths = [event["message"] for event in api.process.events("api.process_died")]
    assert all(f"started in {pause:g} s" in death for pause, death in zip(PAUSES_SECONDS, deaths, strict=True))
    assert not load.unexpected


def test_an_api_whose_processes_all_crash_in_a_loop_ends_and_says_why(cluster: Cluster) -> None:
    api = cluster.api().ready().process

    kill_until(api, lambda: not api.is_running())

    assert api.popen.wait(PATIENCE_SECONDS) == 1
    assert "No other one works. So the API ends, with exit code 1" in message_of(api, "api.crash_loop")
    assert len(api.events("api.process_died")) == 2 * (CRASH_LOOP - 1)


@pytest.mark.parametrize("make_wrong", [break_the_file, put_other_routes_in_force])
def test_a_configuration_that_has_become_wrong_ends_no_process_that_serves(
    cluster: Cluster, seed: int, make_wrong: Callable[[Cluster], None]
) -> None:
    routes = cluster.home / "routes.toml"
    before = routes.read_text()
    api = cluster.api().ready()
    first, second = api.process.forked(2)

    with Load([api.port], [cluster.an_item(100_000).id], seed) as load:
        load.wait(answers=20)
        make_wrong(cluster)
        kill(first)
        kept = message_of(api.process, "api.wrong_configuration")
        load.wait(answers=20)
        assert api.process.forks() == {second}
        routes.write_text(before)
        use_routes(cluster, "")
        assert second in api.process.forked(2)
        load.wait(answers=20)

    assert f"the start is tried again every {TRY_AGAIN_SECONDS:g} s" in kept
    assert "routes" in api.process.log.read_text()
    assert not load.unexpected


def test_an_api_ends_when_its_last_process_is_gone_and_the_configuration_is_wrong(cluster: Cluster) -> None:
    api = cluster.api().ready().process
    first, second = api.forked(2)
    break_the_file(cluster)
    kill(first)
    wait_until("it can't start another one", lambda: api.events("api.wrong_configuration"))

    kill(second)

    assert api.popen.wait(PATIENCE_SECONDS) == 2
    assert "No process of the API can start" in message_of(api, "api.wrong_configuration")


def test_no_process_outlives_an_api_that_was_killed_and_its_port_is_free(cluster: Cluster, seed: int) -> None:
    api = cluster.api().ready()
    orphans = api.process.forked(2)

    with Load([api.port], [cluster.an_item(100_000).id], seed) as load:
        load.wait(answers=20)
        api.process.popen.kill()
        wait_until("all have ended", lambda: not any(map(is_alive, orphans)), within=GONE_WITHIN_SECONDS)
        cluster.api(api.port).ready()
        load.wait(answers=20)

    assert not load.unexpected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("whole_group", [True, False])
def test_any_signal_to_end_is_obeyed_with_exit_code_0(
    cluster: Cluster, number: signal.Signals, whole_group: bool
) -> None:
    api = cluster.api().ready().process
    processes = api.forked(2)

    api.send(number) if whole_group else api.popen.send_signal(number)

    assert api.popen.wait(GONE_WITHIN_SECONDS) == 0
    assert not any(map(is_alive, processes))
    assert not api.events("api.process_died")


def test_an_api_that_waits_to_start_a_process_again_ends_when_it_has_to(cluster: Cluster) -> None:
    api = cluster.api(WEB_CONCURRENCY="1").ready().process
    kill_until(api, lambda: len(api.events("api.process_died")) == CRASH_LOOP - 1)
    assert not api.forks()

    api.popen.send_signal(signal.SIGTERM)

    assert api.popen.wait(GONE_WITHIN_SECONDS) == 0


def test_an_api_that_was_started_with_nohup_outlives_its_terminal(cluster: Cluster) -> None:
    port = free_port()
    nohup = subprocess.run(["which", "nohup"], capture_output=True, text=True, check=True).stdout.strip()
    api = Api(port, cluster.start("api", nohup, str(ROOT / "bin" / "api"), PORT=str(port))).ready()
    first, second = api.process.forked(2)

    api.process.send(signal.SIGHUP)

    kill(first)
    assert second in api.process.forked(2, but=[first])
    assert api.ready().process.is_running()
