"""The routes file: what it may contain, and the message about each mistake."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from domain.outbox import Route, routes_file
from domain.runtime.errors import ConfigurationError

Load = Callable[[str], Sequence[Route]]
Mistake = Callable[[str], str]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load the destinations of a file with this text."""

    def loaded(text: str) -> Sequence[Route]:
        path = tmp_path / "routes.toml"
        path.write_text(text)
        return routes_file.load(path)

    return loaded


@pytest.fixture
def mistake(load: Load) -> Mistake:
    """Load a file with a mistake. Return the message."""

    def refused(text: str) -> str:
        with pytest.raises(ConfigurationError) as caught:
            load(text)
        return str(caught.value)

    return refused


def test_a_file_contains_everything_about_a_destination(load: Load) -> None:
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
    )

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
    assert load("") == []


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
    )

    assert (one.url, one.secret) == ("https://partner.example/hook", ("whsec_aGVsbG8=",))


def test_a_variable_that_is_not_set_is_named(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)

    message = mistake('[[destination]]\nname = "a"\nurl = "https://${NOT_SET}/"')

    assert "line 3: url: the variable ${NOT_SET} is not set" in message


@pytest.mark.parametrize("url", ["log:", "kafka://a.example/events", "made-up+1.0:anything"])
def test_any_scheme_is_accepted_because_the_workers_know_which_kinds_there_are(load: Load, url: str) -> None:
    (one,) = load(f"[[destination]]\nname = 'a'\nurl = '{url}'\nformat = 'made-up'")

    assert (one.url, one.format) == (url, "made-up")


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
        (ONE + "\n" + ONE.replace('"a"', '"b"') + "format = 'XML 1'", ["line 8", "format", "XML 1"]),
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
def test_the_message_about_a_mistake_names_the_variable_the_line_and_the_key(
    mistake: Mistake, text: str, words: list[str]
) -> None:
    message = mistake(text)

    assert "HOLDFAST_ROUTES" in message
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    "text",
    [
        "[[destination]]\nurl = 'log:'\nsecret = 'whsec_c2VjcmV0'",
        "[[destination]]\nname = 'a'\nurl = 'log:'\nsecret = ['whsec_c2VjcmV0', 1]",
        "[[destination]]\nname = 'a'\nurl = 'log:'\ncolour = 1\nsecret = 'whsec_c2VjcmV0'",
        "[[destination]]\nname = 'a'\nurl = 'log:'\nsecrets = 'whsec_c2VjcmV0'",
    ],
)
def test_a_message_does_not_quote_a_secret(mistake: Mistake, text: str) -> None:
    assert "c2VjcmV0" not in mistake(text)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "routes.toml"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigurationError, match=r"HOLDFAST_ROUTES: .* can't be read"):
        routes_file.load(path)


@pytest.mark.parametrize("url", ["partner.example", "/hook"])
def test_a_url_without_a_scheme_is_refused(mistake: Mistake, url: str) -> None:
    message = mistake(f"[[destination]]\nname = 'partner'\nurl = '{url}'")

    assert "line 3: url: it must begin with a scheme" in message and "https://" in message


@pytest.mark.parametrize(
    "url",
    [
        "//u:{}@host/",
        "https://u:{}@host:99999/",
        "https://u:{}@/",
        "https://u:{}/x@host/",
        "https://u:8/{}@host/",
        "https://u:8?{}@host/",
        "https://u:8#{}@host/",
        "redis://u:8?{}=x@host/0?stream=a",
        "https://u:[{}]x@host/",
        "https://u:{}\u2100x@host/",
    ],
)
@pytest.mark.parametrize("written", ["s3cret", "${PASSWORD}"])
def test_a_url_that_can_not_be_read_is_not_quoted(
    mistake: Mistake, monkeypatch: pytest.MonkeyPatch, url: str, written: str
) -> None:
    monkeypatch.setenv("PASSWORD", "s3cret")

    message = mistake(f'[[destination]]\nname = "partner"\nurl = "{url.format(written)}"')

    assert "line 3: url: " in message and "s3cret" not in message


@pytest.mark.parametrize("url", ["https://u:x$s3cret@host/", "kafka://host/topic?sasl.password=x$s3cret"])
def test_a_dollar_in_a_password_is_not_taken_for_the_name_of_a_variable(mistake: Mistake, url: str) -> None:
    message = mistake(f'[[destination]]\nname = "partner"\nurl = "{url}"')

    assert "line 3: url: a variable in it is not set. Set it, or write %24 if a $ is meant" in message
    assert "s3cret" not in message


def test_a_dollar_in_what_a_variable_contains_is_no_further_variable(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "pa$HOME")

    (one,) = load('[[destination]]\nname = "a"\nurl = "https://u:${PASSWORD}@host/$"')

    assert one.url == "https://u:pa$HOME@host/$"
