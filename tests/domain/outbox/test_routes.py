"""Routes: which destination wants what, and what is wrong with the file that says so."""

from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from domain.outbox import routes, routes_file
from domain.outbox.routes import CONFIRMATION, STEPS, Route, Routes
from domain.runtime.settings import Settings
from tests.support.builders import Db
from worker.destinations import KINDS, open_destination

Load = Callable[[str], Routes]


@pytest.fixture
def load(tmp_path: Path, settings: Settings) -> Load:
    """Load the routes of a file with this text."""

    def loaded(text: str) -> Routes:
        path = tmp_path / "routes.toml"
        path.write_text(text)
        return routes_file.load(settings.model_copy(update={"routes_file": path}))

    return loaded


@pytest.fixture
def complaint(load: Load, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Load what can't be loaded, and return what is said about it."""

    def refused(text: str) -> str:
        with pytest.raises(SystemExit) as ended:
            load(text)
        assert ended.value.code == 2
        return capsys.readouterr().err

    return refused


@pytest.mark.parametrize(
    ("wants", "event_type", "wanted"),
    [
        ("*", "booking.created", True),
        ("booking.*", "booking.created", True),
        ("booking.*", "booking", False),
        ("booking.*", "payment.done", False),
        ("*.created", "booking.created", True),
        ("booking.created", "booking.created", True),
        ("booking.created", "booking.created.again", False),
        ("BOOKING.*", "booking.created", False),
        ("*", "reservation_confirm", False),
        ("reservation_*", "reservation_confirm", False),
        ("*", "reservation_release", False),
        ("reservation_confirm", "reservation_confirm", True),
        ("reservation_confirm", "reservation_release", False),
    ],
)
def test_a_destination_wants_what_it_names_and_a_wildcard_never_names_a_step(
    wants: str, event_type: str, wanted: bool
) -> None:
    assert Route(name="a", url="log:", events=(wants,)).wants(event_type) is wanted


def test_all_destinations_that_want_an_event_are_found_in_the_order_of_the_file() -> None:
    wanted = Routes(
        [
            Route(name="b", url="log:"),
            Route(name="a", url="log:", events=("booking.*", "payment.*")),
            Route(name="c", url="log:", events=()),
        ]
    )

    assert [wanted.wanting(name) for name in ("booking.created", "other", "reservation_confirm")] == [
        ["b", "a"],
        ["b"],
        [],
    ]


def test_without_a_file_everything_goes_to_the_log(settings: Settings) -> None:
    (log,) = routes_file.load(settings).destinations

    assert (log.name, log.url, log.events) == ("log", "log:", ("*",))


def test_a_confirmation_url_is_a_destination_for_steps_alone(settings: Settings) -> None:
    loaded = routes_file.load(settings.model_copy(update={"confirmation_url": "http://127.0.0.1:1/confirm"}))

    assert [route.name for route in loaded.destinations] == ["log", CONFIRMATION]
    for step in STEPS:
        assert loaded.wanting(step) == [CONFIRMATION]
    assert loaded.wanting("booking.created") == ["log"]


def test_a_file_says_everything_about_a_destination(load: Load) -> None:
    (one,) = load(
        """
        [[destination]]
        name = "partner-1"
        url = "https://partner.example/hook"
        events = ["booking.*"]
        secret = "whsec_aGVsbG8="
        batch_size = 10
        concurrency = 2
        max_attempts = 3
        """
    ).destinations

    assert one == Route(
        name="partner-1",
        url="https://partner.example/hook",
        events=("booking.*",),
        secret=("whsec_aGVsbG8=",),
        batch_size=10,
        concurrency=2,
        max_attempts=3,
    )
    assert "whsec" not in repr(one)


def test_an_empty_file_has_no_destination(load: Load) -> None:
    assert load("").destinations == []


def test_variables_are_expanded_where_secrets_may_be(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTNER_HOST", "partner.example")
    monkeypatch.setenv("PARTNER_SECRET", "whsec_aGVsbG8=")

    (one,) = load(
        """
        [[destination]]
        name = "partner"
        url = "https://${PARTNER_HOST}/hook"
        secret = "$PARTNER_SECRET"
        """
    ).destinations

    assert (one.url, one.secret) == ("https://partner.example/hook", ("whsec_aGVsbG8=",))


def test_a_variable_that_is_not_set_is_named(complaint: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)

    assert "NOT_SET" in complaint('[[destination]]\nname = "a"\nurl = "https://${NOT_SET}/"')


ONE = '[[destination]]\nname = "a"\nurl = "log:"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[destination]", ["can't be read"]),
        ("name = 'a'", ["unknown key 'name'", "[[destination]]"]),
        ("[[destinations]]\nname = 'a'", ["unknown key 'destinations'"]),
        ("[destination]\nname = 'a'\nurl = 'log:'", ["[[destination]]"]),
        ("destination = 'log:'", ["[[destination]]"]),
        ("destination = ['log:']", ["[[destination]]"]),
        (ONE + "colour = 'red'", ["line 4", "colour: a destination has no such key; it has name, url, events"]),
        (ONE + ONE, ["line 5", "'a'", "two destinations"]),
        (ONE + "\n" + ONE.replace('"a"', '"b"') + "format = 'xml'", ["line 8", "format", "xml", "envelope"]),
        (ONE + "\n[[ destination ]]\nname = 'b'", ["line 5", "url"]),
        (ONE + "timeout_seconds = 61", ["line 4", "timeout_seconds", "61"]),
        (ONE + "first_retry_seconds = 0", ["line 4", "first_retry_seconds"]),
        (ONE + "longest_retry_seconds = 86401", ["line 4", "longest_retry_seconds"]),
        (ONE + "secret = [1]", ["line 4", "secret"]),
        ("[[destination]]\nurl = 'log:'", ["name"]),
        ("[[destination]]\nname = 'a'", ["url"]),
        ("[[destination]]\nname = 'a'\nurl = ''", ["url"]),
        ("[[destination]]\nname = 'Big'\nurl = 'log:'", ["name", "Big"]),
        ("[[destination]]\nname = '1st'\nurl = 'log:'", ["name", "1st"]),
        ("[[destination]]\nname = 'a b'\nurl = 'log:'", ["name", "a b"]),
        (f"[[destination]]\nname = '{'a' * 65}'\nurl = 'log:'", ["name"]),
        ("[[destination]]\nname = 'a'\nurl = 'https://'", ["url", "host"]),
        ("[[destination]]\nname = 'a'\nurl = 'http:///hook'", ["url", "host"]),
        ("[[destination]]\nname = 'a'\nurl = 'https://[::1'", ["url"]),
        ("[[destination]]\nname = 'a'\nurl = 'https://a:port/'", ["url"]),
        (ONE + "batch_size = 0", ["batch_size", "0"]),
        (ONE + "batch_size = 'many'", ["batch_size", "many"]),
        (ONE + "concurrency = 65", ["concurrency", "65"]),
        (ONE + "max_attempts = 0", ["max_attempts", "0"]),
        (ONE + "events = 'booking.*'", ["events", "booking.*"]),
        (ONE + "events = [1]", ["events"]),
    ],
)
def test_what_is_wrong_is_said_and_the_process_does_not_start(
    complaint: Callable[[str], str], text: str, words: list[str]
) -> None:
    said = complaint(text)

    assert "HOLDFAST_ROUTES" in said
    assert all(word in said for word in words)


@pytest.mark.parametrize(
    "text",
    [
        "[[destination]]\nurl = 'log:'\nsecret = 'whsec_c2VjcmV0'",
        "[[destination]]\nname = 'a'\nurl = 'log:'\nsecret = ['whsec_c2VjcmV0', 1]",
        "[[destination]]\nname = 'a'\nurl = 'log:'\ncolour = 1\nsecret = 'whsec_c2VjcmV0'",
        "[[destination]]\nname = 'a'\nurl = 'log:'\nsecrets = 'whsec_c2VjcmV0'",
    ],
)
def test_a_complaint_does_not_tell_a_secret(complaint: Callable[[str], str], text: str) -> None:
    assert "c2VjcmV0" not in complaint(text)


def test_a_file_that_is_no_text_is_refused(load: Load, tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "routes.toml"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(SystemExit):
        routes_file.load(settings.model_copy(update={"routes_file": path}))


def test_the_confirmation_of_the_file_and_that_of_the_environment_are_one_too_many(
    tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "routes.toml"
    path.write_text('[[destination]]\nname = "confirmation"\nurl = "log:"')
    both = settings.model_copy(update={"routes_file": path, "confirmation_url": "http://127.0.0.1:1/"})

    with pytest.raises(SystemExit):
        routes_file.load(both)
    assert "'confirmation'" in capsys.readouterr().err


def test_every_kind_that_a_route_may_name_can_be_opened() -> None:
    assert set(routes.KINDS) == KINDS.keys()


@pytest.mark.parametrize("url", ["ftp://partner.example", "partner.example", "/hook"])
def test_a_url_of_an_unknown_kind_keeps_every_process_from_starting(complaint: Callable[[str], str], url: str) -> None:
    said = complaint(f"[[destination]]\nname = 'partner'\nurl = '{url}'")

    assert "line 3" in said and url in said
    assert "no kind of destination" in said and "webhook" not in said and "https" in said


@pytest.mark.parametrize(
    "url", ["amqq://u:${PASSWORD}@host/", "https://u:${PASSWORD}@host:99999/", "https://u:${PASSWORD}@/"]
)
def test_a_url_that_can_not_be_read_is_not_told_with_its_password(
    complaint: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("PASSWORD", "s3cret")

    said = complaint(f'[[destination]]\nname = "partner"\nurl = "{url}"')

    assert "line 3: url: " in said and url in said and "s3cret" not in said


@pytest.mark.parametrize(
    ("url", "kind"),
    [("log:", "Log"), ("null:", "Null"), ("http://a.example/", "Webhook"), ("https://a.example", "Webhook")],
)
def test_the_scheme_of_a_url_says_what_it_leads_to(url: str, kind: str, settings: Settings, db: Db) -> None:
    destination = open_destination(Route(name="partner", url=url), settings, db, Event())
    destination.close()

    assert type(destination).__name__ == kind


def test_the_confirmation_url_leads_to_the_step(settings: Settings, db: Db) -> None:
    settings = settings.model_copy(update={"confirmation_url": "http://127.0.0.1:1/"})
    (_, route) = routes_file.load(settings).destinations

    destination = open_destination(route, settings, db, Event())
    destination.close()

    assert type(destination).__name__ == "Confirmation"
