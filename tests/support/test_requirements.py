"""A test that needs something that is missing is skipped on a laptop, with a message, and fails in CI."""

import pytest

from tests.support.requirements import required


def test_a_test_whose_requirement_is_there_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")

    required("RabbitMQ", True, "rabbitmq-server")


def test_a_laptop_skips_the_test_and_shows_how_to_install_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)

    with pytest.raises(pytest.skip.Exception, match=r"RabbitMQ is missing.*apt-get install rabbitmq-server"):
        required("RabbitMQ", False, "rabbitmq-server")


def test_ci_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")

    with pytest.raises(pytest.fail.Exception, match="apt-get install rabbitmq-server"):
        required("RabbitMQ", False, "rabbitmq-server")
