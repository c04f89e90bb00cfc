"""The invariant of guests: somebody has the keys by which they can be read."""

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy.orm import Session

from domain.invariants.invariant import Invariant
from domain.privacy import KeyService, key_check
from domain.privacy.guests import count_by_key
from domain.runtime.errors import PersonalDataUnavailable


def keyed_by(keys: KeyService | None) -> Invariant:
    """Every guest who is not forgotten has one of these keys, and it opens the oldest and the newest guest of each."""

    def violations(session: Session) -> Iterator[str]:
        counted, samples = count_by_key(session), key_check.samples(session) if keys else ()
        # A key service may take long, and no transaction waits for anything but PostgreSQL.
        session.commit()
        try:
            yield from _violations(keys, counted, samples)
        except PersonalDataUnavailable:
            yield "the key service of PII_KEY_SERVICE can't be reached: its keys were not tried"

    return Invariant(
        "every guest has a key of PII_KEYS",
        violations,
        "These keys are not in the PII_KEYS of this command, or are others there than they were, and without them these"
        " guests can't be read or found. Put them back behind the first one, there and for the API, and run"
        " bin/rotate-keys before you take them out.",
        misses="Guests between the oldest and the newest one of a key who have another key of the same id, or were"
        " damaged: bin/rotate-keys names those who can't be read.",
    )


def _violations(
    keys: KeyService | None, counted: Mapping[str, int], samples: Sequence[key_check.Sample]
) -> Iterator[str]:
    key_ids = keys.key_ids if keys else frozenset()
    for key_id, number in sorted(counted.items()):
        if key_id not in key_ids:
            yield f"{key_id} ({number} guests)"
    for sample in samples:
        if keys and sample.key_id in key_ids and not sample.opens(keys):
            yield f"{sample.key_id} (it does not open the guest of the reservation {sample.reservation_id})"
