"""The commit horizon: up to which id the rows of the outbox are complete, as the claims of a process have shown."""

from domain.outbox import CommitHorizon
from domain.outbox.delivery.commit_horizon import SnapshotView


def view(newest: int, *, ended_below: int, begun_below: int) -> SnapshotView:
    return SnapshotView(newest=newest, ended_below=ended_below, begun_below=begun_below)


def test_rows_are_complete_when_all_transactions_that_had_begun_have_ended() -> None:
    commit_horizon = CommitHorizon()

    assert commit_horizon.at(view(10, ended_below=5, begun_below=8)) == 0
    assert commit_horizon.at(view(20, ended_below=7, begun_below=9)) == 0, "transaction 7 may still commit"
    assert commit_horizon.at(view(30, ended_below=8, begun_below=9)) == 10
    assert commit_horizon.at(view(40, ended_below=8, begun_below=12)) == 10
    assert commit_horizon.at(view(50, ended_below=9, begun_below=12)) == 30


def test_a_view_that_is_older_than_the_one_another_thread_has_shown_proves_nothing_complete() -> None:
    commit_horizon = CommitHorizon()
    commit_horizon.at(view(10, ended_below=8, begun_below=8))
    assert commit_horizon.at(view(10, ended_below=9, begun_below=9)) == 10

    assert commit_horizon.at(view(10, ended_below=7, begun_below=9)) == 0


def test_when_ids_go_backwards_the_horizon_begins_anew() -> None:
    commit_horizon = CommitHorizon()
    commit_horizon.at(view(10, ended_below=8, begun_below=8))
    assert commit_horizon.at(view(10, ended_below=8, begun_below=8)) == 10

    assert commit_horizon.at(view(3, ended_below=9, begun_below=9)) == 0
    assert commit_horizon.at(view(12, ended_below=9, begun_below=9)) == 3
