"""`amqps://`: a RabbitMQ with a certificate of a CA that was made for the test. Each failure says what to do."""

from contextlib import closing
from datetime import timedelta
from threading import Event
from typing import NamedTuple

import pytest

from domain.outbox import Delivered, Outcome, Route, Unreachable
from tests.support.builders import some_settings
from tests.support.certificates import Authority, Files
from tests.support.rabbitmq import RabbitMQ, rabbitmq
from tests.worker.sinks.test_amqp import a_row
from worker.ordering.pace import Pace
from worker.sinks.amqp.sink import Amqp

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rabbitmq")]

#: Options of Erlang's `ssl` with which a client needs a certificate.
WANTS_CERTIFICATE = ("{verify, verify_peer}", "{fail_if_no_peer_cert, true}")


class Environment(NamedTuple):
    """A RabbitMQ with an exchange, the CA that signs its certificates, and another CA."""

    server: RabbitMQ
    exchange: str
    ours: Authority
    other: Authority

    def listen(self, own: Files, *options: str) -> int:
        return self.server.listen_with_tls(own, self.ours.certificate, *options)

    def delivered(
        self,
        port: int,
        *,
        trusts: Authority | None = None,
        own: Files | None = None,
        scheme: str = "amqps",
        host: str = "127.0.0.1",
    ) -> Outcome:
        """Deliver a row to a port, as a client that trusts a CA and may have a certificate of its own."""
        url = f"{scheme}://{host}:{port}?exchange={self.exchange}"
        if trusts:
            url += f"&cacertfile={trusts.certificate}"
        if own:
            url += f"&certfile={own.certificate}&keyfile={own.key}"
        with closing(Amqp(Route(name="bookings", url=url), some_settings(), Pace(Event()))) as sink:
            (outcome,) = sink.deliver([a_row()])
        return outcome


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder, server = tmp_path_factory.mktemp("certificates"), rabbitmq()
    return Environment(server, server.an_exchange(), Authority(folder, "our-ca"), Authority(folder, "other-ca"))


@pytest.fixture(scope="module")
def port(environment: Environment) -> int:
    """A port with a certificate as it should be."""
    return environment.listen(environment.ours.sign("server"))


def reason(outcome: Outcome) -> str:
    assert isinstance(outcome, Unreachable)
    return outcome.error


def test_a_certificate_of_a_trusted_ca_is_accepted(environment: Environment, port: int) -> None:
    assert environment.delivered(port, trusts=environment.ours) == Delivered()
    assert len(environment.server.take_all(environment.exchange)) == 1


@pytest.mark.parametrize("trusts_other", [True, False], ids=["another CA is trusted", "the system's CAs are trusted"])
def test_a_certificate_of_an_unknown_ca_is_refused(environment: Environment, port: int, trusts_other: bool) -> None:
    outcome = environment.delivered(port, trusts=environment.other if trusts_other else None)

    assert reason(outcome).startswith("RabbitMQ's certificate can't be trusted: ")
    assert reason(outcome).endswith("of the CA that has signed it by the option cacertfile")


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.2"), ("localhost", "127.0.0.1")])
def test_a_certificate_for_another_host_is_refused(environment: Environment, host: str, address: str) -> None:
    port = environment.listen(environment.ours.sign(f"elsewhere-{address}", address=address))

    outcome = environment.delivered(port, trusts=environment.ours, host=host)

    assert "mismatch, certificate is not valid for" in reason(outcome) and host in reason(outcome)
    assert "Write a host in the URL that the certificate names" in reason(outcome)


@pytest.mark.parametrize(
    ("days", "said"), [(-1, "certificate has expired"), (8, "certificate is not yet valid")], ids=["over", "to come"]
)
def test_a_certificate_that_is_not_valid_today_is_refused(environment: Environment, days: int, said: str) -> None:
    port = environment.listen(environment.ours.sign(f"expired-{days}", expires_in=timedelta(days=days)))

    outcome = environment.delivered(port, trusts=environment.ours)

    assert said in reason(outcome) and "use a certificate that is valid today" in reason(outcome)


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
def test_a_server_that_wants_a_certificate_of_its_clients_gets_one_that_it_trusts(
    environment: Environment, version: str
) -> None:
    port = environment.listen(
        environment.ours.sign(f"server-{version}"), *WANTS_CERTIFICATE, f"{{versions, ['{version}']}}"
    )
    ours, strange = environment.ours.sign("client"), environment.other.sign("stranger")

    assert environment.delivered(port, trusts=environment.ours, own=ours) == Delivered()
    for own in (None, strange):
        outcome = environment.delivered(port, trusts=environment.ours, own=own)
        assert "It may want a certificate of its clients" in reason(outcome)
        assert "certfile and keyfile" in reason(outcome)


def test_a_port_without_tls_is_no_port_for_amqps(environment: Environment) -> None:
    outcome = environment.delivered(environment.server.port)

    assert reason(outcome).startswith("the server does not speak TLS at this port")


def test_a_port_with_tls_is_no_port_for_amqp(environment: Environment, port: int) -> None:
    outcome = environment.delivered(port, scheme="amqp")

    assert "write amqps:// in place of amqp://" in reason(outcome)
