"""The queue in which participants take turns, against a model that is plain lists."""

from hypothesis import given
from hypothesis import strategies as st

from api.fair_queue import FairQueue

PARTICIPANTS = st.sampled_from(["a", "b", "c"])

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "put_first", "pop_of", "make_room_for"]), PARTICIPANTS),
        st.tuples(st.sampled_from(["pop", "take_out"]), st.just("")),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_is_done_each_participant_has_its_items_in_order_and_its_turn(steps: list[tuple[str, str]]) -> None:
    queue: FairQueue[int] = FairQueue()
    model: list[tuple[str, list[int]]] = []

    for number, (step, participant) in enumerate(steps):
        of = dict(model)
        if step in ("put", "put_first"):
            getattr(queue, step)(participant, number)
            if participant not in of:
                model.append((participant, []))
            dict(model)[participant].insert(len(of.get(participant, [])) if step == "put" else 0, number)
        elif step in ("pop", "pop_of") and (whose := participant or next(iter(of), "")) in of:
            assert (queue.pop() if step == "pop" else queue.pop_of(whose)) == of[whose].pop(0)
            model = [*(one for one in model if one[0] != whose), (whose, of[whose])]
        elif step == "make_room_for" and model:
            most = max(len(items) for _, items in model)
            room = queue.make_room_for(participant)
            assert (room is not None) == (most > len(of.get(participant, [])) + 1)
            if room is not None:
                assert room in [items.pop() for _, items in model if len(items) == most and items[-1] == room]
        elif step == "take_out":
            gone = [item for _, items in model for item in items if item % 3 == 0]
            assert queue.take_out(lambda item: item % 3 == 0) == gone
            model = [(whose, [item for item in items if item % 3]) for whose, items in model]
        model = [(whose, items) for whose, items in model if items]
        assert list(queue) == [item for _, items in model for item in items]
        assert list(queue.participants) == [whose for whose, _ in model]
        assert len(queue) == sum(len(items) for _, items in model)
