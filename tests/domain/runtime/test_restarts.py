"""A process that dies is started again: at once if it has lived well, later and later if not, and not for ever."""

from signal import SIGBUS, SIGKILL, SIGSEGV

from domain.runtime.processes.restarts import CRASH_LOOP, WELL_SECONDS, Restarts, cause


def test_the_first_death_costs_no_time_and_the_next_ones_more_and_more() -> None:
    restarts = Restarts()

    assert [restarts.pause_after(1.0) for _ in range(CRASH_LOOP)] == [0, 1, 2, 4, None]


def test_a_process_that_has_lived_well_is_started_again_at_once_for_ever() -> None:
    restarts = Restarts()

    assert [restarts.pause_after(WELL_SECONDS) for _ in range(100)] == [0] * 100


def test_early_deaths_before_a_good_life_are_forgotten() -> None:
    restarts = Restarts()
    for _ in range(CRASH_LOOP - 1):
        restarts.pause_after(0.1)

    assert restarts.pause_after(WELL_SECONDS) == 0
    assert [restarts.pause_after(0.1) for _ in range(CRASH_LOOP)] == [0, 1, 2, 4, None]


def test_a_crash_loop_is_over_within_a_minute() -> None:
    restarts = Restarts()

    pauses = [restarts.pause_after(WELL_SECONDS - 0.1) or 0.0 for _ in range(CRASH_LOOP)]

    assert sum(pauses) + CRASH_LOOP * WELL_SECONDS < 60


def test_what_ended_a_process_is_named() -> None:
    assert cause(3) == "exit code 3"
    assert cause(-SIGSEGV) == "SIGSEGV"
    assert cause(-SIGKILL).startswith("SIGKILL, by the kernel for lack of memory")
    assert "the disk of TMPDIR is full" in cause(-SIGBUS)
    assert cause(-40) == "signal 40"
