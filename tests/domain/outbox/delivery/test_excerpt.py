"""What is stored of the answer of a receiver: a part of it, without the secrets that it repeats."""

from domain.outbox.delivery.outcomes import ERROR_LENGTH, excerpt


def test_secrets_that_a_receiver_repeats_are_not_stored() -> None:
    answer = "500: {'Host': 'x', 'Authorization': 'Basic Y255dXNlcjpjbnl1cmxwYXNz'} http://me:hunter2@x/ whsec_Zm9vYmFy"

    stored = excerpt(answer)

    assert stored.startswith("500: {'Host': 'x'")
    assert not any(secret in stored for secret in ("Y255dXNlcjpjbnl1cmxwYXNz", "hunter2", "Zm9vYmFy"))


def test_a_secret_that_is_cut_off_is_not_stored_in_part() -> None:
    assert "hunter" not in excerpt("x" * (ERROR_LENGTH - 20) + "http://me:hunter2hunter2@x/")
