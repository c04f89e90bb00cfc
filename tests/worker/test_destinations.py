"""Which sink or step a route leads to, and routes that lead to none."""

import sys
from pathlib import Path
from threading import Event

import pytest

from domain.fulfilment import load_routes
from domain.outbox import Route, routes_file
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import Settings
from tests.support.builders import Db, some_settings
from worker.destinations import SINKS, STEPS, Destination, Kind, Step, open_sink, open_step
from worker.ordering.pace import Pace


def opened(url: str, **fields: object) -> Destination:
    route = Route.model_validate({"name": "partner", "url": url} | fields)
    sink = open_sink(route, some_settings(), Pace(Event()))
    sink.close()
    return sink


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("log:", "Log"),
        ("null:", "Null"),
        ("feed:", "Feed"),
        ("http://a.example/", "Webhook"),
        ("https://a.example", "Webhook"),
        ("sqs://sqs.eu-west-1.amazonaws.com/123456789012/bookings", "Sqs"),
        ("amqp://a.example/?exchange=bookings", "Amqp"),
        ("amqps://a.example/?exchange=bookings", "Amqp"),
        ("kafka://a.example:9092/bookings", "Kafka"),
        ("redis://a.example/0?stream=bookings", "RedisStream"),
        ("rediss://a.example/0?stream=bookings", "RedisStream"),
        ("unix:///run/redis.sock?stream=bookings", "RedisStream"),
    ],
)
def test_the_scheme_of_a_url_chooses_the_sink(url: str, kind: str) -> None:
    assert type(opened(url)).__name__ == kind


def test_the_confirmation_url_leads_to_the_step(settings: Settings, db: Db) -> None:
    settings = settings.model_copy(update={"confirmation_url": "http://127.0.0.1:1/"})
    routes = load_routes(settings)
    (route,) = routes.steps

    step = open_step(route, settings, db, routes, Pace(Event()))
    step.close()

    assert type(step).__name__ == "ConfirmationStep"
    assert isinstance(step, Step)


def test_every_step_that_the_settings_can_ask_for_can_be_opened(settings: Settings) -> None:
    routes = load_routes(settings.model_copy(update={f"{step}_url": "http://127.0.0.1:1/" for step in STEPS}))

    assert [route.name for route in routes.steps] == list(STEPS)


@pytest.mark.parametrize("url", ["ftp://partner.example", "webhook:partner", "amqq://partner.example"])
def test_a_scheme_that_does_not_exist_is_refused_with_the_list_of_those_that_do(url: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        opened(url)

    message = str(error.value)
    scheme = url.partition(":")[0]
    assert message.startswith(f"HOLDFAST_ROUTES: destination 'partner': there is no kind of destination {scheme!r};")
    assert all(known in message for known in SINKS)


@pytest.mark.parametrize("scheme", SINKS)
def test_a_format_that_does_not_exist_is_refused_whatever_the_sink(scheme: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        opened(f"{scheme}://partner.example/1/x?exchange=x&stream=x", format="xml")

    message = str(error.value)
    assert "HOLDFAST_ROUTES" in message and "'partner'" in message
    assert "'xml'" in message and "envelope, slot, cloudevents" in message


@pytest.mark.parametrize(
    "url",
    [
        "amqq://user:s3cret@partner.example/",
        # Parsers take only a part of these passwords for the password: they have characters that are not encoded.
        "amqp://user:s3cret/s3cret@partner.example/?exchange=bookings",
        "amqp://user:1/s3cret/s3cret@partner.example/?exchange=bookings",
        "amqp://user:1?s3cret@partner.example/?exchange=bookings",
        "redis://user:s3cret/s3cret@partner.example/0?stream=bookings",
        "redis://user:s3cret/0?stream=bookings",
        "redis://user:1/s3cret@partner.example/0?stream=bookings",
        "redis://user:1?s3cret@partner.example/0?stream=bookings",
        "kafka://user:s3cret@partner.example/bookings",
        "kafka://partner.example/user:s3cret@partner.example/bookings",
        "sqs://user:s3cret@part_ner.example/1/bookings",
        "sqs://user:1/s3cret@partner.example/1/bookings",
        "log://user:s3cret@partner.example/var/log/bookings",
        # An & ends them.
        "kafka://partner.example/bookings?sasl.password=x&s3cret",
        "kafka://partner.example/bookings?sasl.password=x&s3cret=1",
        "kafka://partner.example/bookings?sasl.password=x&linger.ms=s3cret",
        "kafka://partner.example/bookings?sasl.password=x&my_s3cret=1",
        "redis://partner.example/0?stream=bookings&password=x&a_s3cret=1",
        "amqp://partner.example/?exchange=bookings&password=x&s3cret=1",
    ],
)
def test_an_error_never_quotes_a_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    file = tmp_path / "routes.toml"
    file.write_text(f'[[destination]]\nname = "partner"\nurl = "{url}"')

    with pytest.raises(ConfigurationError) as error:
        (route,) = routes_file.load(file)
        open_sink(route, some_settings(), Pace(Event()))

    message = str(error.value)
    assert message.startswith("HOLDFAST_ROUTES: ") and ("'partner'" in message or "line 3: url: " in message)
    assert "s3cret" not in message
    assert "s3cret" not in str(error.value.__cause__)


def test_a_proxy_that_can_not_be_read_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:s3cret/s3cret@proxy.example:3128")

    with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as error:
        opened("sqs://sqs.eu-west-1.amazonaws.com/123456789012/bookings")

    assert "s3cret" not in str(error.value) and "s3cret" not in str(error.value.__cause__)


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("sqs://sqs.eu-west-1.amazonaws.com/123456789012/bookings", "boto3", "sqs"),
        ("amqp://a.example/?exchange=bookings", "pika", "rabbitmq"),
        ("kafka://a.example:9092/bookings", "confluent_kafka", "kafka"),
    ],
)
def test_without_its_package_a_sink_can_not_be_used_and_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str, extra: str
) -> None:
    scheme = url.partition(":")[0]
    for name in [name for name in sys.modules if name.startswith(f"worker.sinks.{scheme}")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ConfigurationError) as error:
        opened(url)

    message = str(error.value)
    assert message.startswith(f"HOLDFAST_ROUTES: destination 'partner': {scheme}:// needs the package {package!r}")
    assert f"Run: bin/install {extra} (that is: pip install -e '.[{extra}]')" in message


def test_a_fault_in_a_sink_of_our_own_is_not_taken_for_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SINKS, "null", Kind("worker.sinks.nowhere", "Null"))

    with pytest.raises(ModuleNotFoundError):
        opened("null:")
