"""What is missing on a laptop is skipped, and said; CI has it, or fails."""

import pytest

from tests.support.requirements import required


def test_what_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")

    required("RabbitMQ", True, "rabbitmq-server")


def test_a_laptop_skips_what_it_has_not_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)

    with pytest.raises(pytest.skip.Exception, match=r"RabbitMQ is missing.*apt-get install rabbitmq-server"):
        required("RabbitMQ", False, "rabbitmq-server")


def test_ci_fails_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")

    with pytest.raises(pytest.fail.Exception, match="apt-get install rabbitmq-server"):
        required("RabbitMQ", False, "rabbitmq-server")
