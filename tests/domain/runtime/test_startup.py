"""The start of a process: a wrong configuration ends it with a message on standard error and exit code 2."""

from collections.abc import Callable

import pytest

from domain.runtime import startup
from domain.runtime.errors import ConfigurationError


def wrongly_configured() -> int:
    raise ConfigurationError("PORT: it is no number")


def exit_code(main: Callable[[], int | None]) -> object:
    with pytest.raises(SystemExit) as ended:
        startup.run(main)
    return ended.value.code


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_a_process_exits_with_what_its_main_function_returns(returned: int | None, code: int) -> None:
    assert exit_code(lambda: returned) == code


def test_a_wrong_configuration_is_printed_on_standard_error_and_the_exit_code_is_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code(wrongly_configured) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert "\nPORT: it is no number\n" in printed.err
    assert "docs/configuration.md" in printed.err and "Traceback" not in printed.err


def test_any_other_error_is_raised_as_it_is() -> None:
    def broken() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        startup.run(broken)
