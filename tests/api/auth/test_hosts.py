"""Hosts: what businesses and providers may do with what is theirs, and that it ends there."""

from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from domain import items
from domain.access import Role
from domain.items import Item
from tests.api.auth.identity import SigningKey
from tests.support.builders import a_calendar

Db = sessionmaker[Session]


@pytest.fixture
def lisbon(key: SigningKey) -> dict[str, str]:
    """The credentials of a business in Lisbon."""
    return bearing(key.token("business", venues=["lisbon"]))


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def stock(db: Db, **owners: str) -> Item:
    with db.begin() as session:
        number = len(items.find(session, limit=100))
        return items.create(session, sku=f"THING-{number}", name="Thing", available_quantity=9, **owners)


def reserve(api: httpx.Client, headers: dict[str, str], *of: Item, **more: Any) -> httpx.Response:
    lines = [{"sku": item.sku, "quantity": 1} for item in of]
    return api.post("/reservations", headers=headers, json={"lines": lines, **more})


def test_a_business_reserves_for_any_guest_at_its_venues_and_nowhere_else(
    api: httpx.Client, db: Db, lisbon: dict[str, str]
) -> None:
    own, others, nobodys = stock(db, venue="lisbon"), stock(db, venue="porto"), stock(db)

    made = reserve(api, lisbon, own, guest={"id": "bob"})

    assert (made.status_code, made.json()["guest"]) == (201, {"id": "bob"})
    assert reserve(api, lisbon, others).status_code == reserve(api, lisbon, nobodys).status_code == 403
    with db.begin() as session:
        assert [one.available_quantity for one in items.find(session, limit=9)] == [8, 9, 9]


def test_a_basket_of_two_venues_belongs_to_neither(
    api: httpx.Client, db: Db, key: SigningKey, lisbon: dict[str, str]
) -> None:
    own, others = stock(db, venue="lisbon"), stock(db, venue="porto")

    assert reserve(api, lisbon, own, others).status_code == 403
    basket = reserve(api, bearing(key.token("guest")), own, others).json()["id"]
    assert api.get(f"/reservations/{basket}", headers=lisbon).status_code == 404
    assert api.post(f"/reservations/{basket}/cancel", headers=lisbon).status_code == 404


def test_a_provider_has_the_reservations_of_its_own_items(api: httpx.Client, db: Db, key: SigningKey) -> None:
    own, others = stock(db, provider="rita", venue="lisbon"), stock(db, provider="rui", venue="lisbon")
    guest = bearing(key.token("guest"))
    mine, theirs = (reserve(api, guest, item).json()["id"] for item in (own, others))
    rita = bearing(key.token("provider", provider_id="rita"))

    assert [one["id"] for one in api.get("/reservations", headers=rita).json()["reservations"]] == [mine]
    assert api.post(f"/reservations/{mine}/confirm", headers=rita).status_code == 200
    assert api.post(f"/reservations/{theirs}/confirm", headers=rita).status_code == 404


def test_a_business_blocks_time_of_its_own_calendars_only(api: httpx.Client, db: Db, lisbon: dict[str, str]) -> None:
    own, others = a_calendar(db, venue="lisbon"), a_calendar(db, venue="porto")
    time = {"start": "2030-05-03T10:00:00Z", "end": "2030-05-03T11:00:00Z"}

    answers = [api.post(f"/items/by-id/{one.id}/blocks", headers=lisbon, json=time) for one in (own, others)]

    assert [answer.status_code for answer in answers] == [201, 403]


def test_a_business_creates_items_of_its_venues_only(api: httpx.Client, lisbon: dict[str, str]) -> None:
    def created(**owners: str) -> int:
        wanted = {"sku": f"NEW-{owners.get('venue', 'none')}", "name": "New", "available_quantity": 1, **owners}
        return api.post("/items", headers=lisbon, json=wanted).status_code

    assert created(venue="lisbon") == 201
    assert created(venue="porto") == created() == 403


def test_a_business_changes_its_own_items_and_gives_none_away(
    api: httpx.Client, db: Db, lisbon: dict[str, str]
) -> None:
    own, others = stock(db, venue="lisbon"), stock(db, venue="porto")

    def changed(item: Item, **change: Any) -> int:
        return api.patch(f"/items/{item.sku}", headers=lisbon, json=change).status_code

    assert changed(own, adjust_quantity_by=1, venue="lisbon") == 200
    assert changed(others, adjust_quantity_by=1) == changed(others, venue="lisbon") == 403
    assert changed(own, venue="porto") == 403
    assert api.get(f"/items/{own.sku}", headers=lisbon).json()["venue"] == "lisbon"


def test_a_provider_puts_its_items_into_no_venue(api: httpx.Client, db: Db, key: SigningKey) -> None:
    rita = bearing(key.token("provider", provider_id="rita"))
    at_lisbon = stock(db, venue="lisbon", provider="rita")
    new = {"sku": "NEW", "name": "New", "available_quantity": 1, "provider": "rita"}

    def changed(**change: object) -> int:
        return api.patch(f"/items/{at_lisbon.sku}", headers=rita, json=change).status_code

    assert api.post("/items", headers=rita, json=new | {"venue": "lisbon"}).status_code == 403
    assert api.post("/items", headers=rita, json=new).status_code == 201
    assert changed(name="Consultation") == 200
    assert changed(venue="porto") == changed(venue=None) == changed(provider="rui") == 403


def test_nobody_takes_an_item_out_of_the_venue_of_others(api: httpx.Client, db: Db, key: SigningKey) -> None:
    both = bearing(key.token("business", "provider", venues=["porto"], provider_id="rita"))
    of_rita, nowhere = stock(db, venue="lisbon", provider="rita"), stock(db, provider="rita")

    def moved(item: Item) -> int:
        return api.patch(f"/items/{item.sku}", headers=both, json={"venue": "porto"}).status_code

    assert moved(of_rita) == 403
    assert moved(nowhere) == 200


def test_a_business_gives_items_of_its_venues_to_providers(api: httpx.Client, lisbon: dict[str, str]) -> None:
    new = {"sku": "NEW", "name": "New", "available_quantity": 1, "venue": "lisbon", "provider": "rui"}

    assert api.post("/items", headers=lisbon, json=new).json()["provider"] == "rui"


def test_staff_lists_by_venue_and_a_business_with_several_says_which(
    api: httpx.Client, db: Db, key: SigningKey
) -> None:
    guest, staff = bearing(key.token("guest")), bearing(key.token("staff"))
    lisbon, porto = (reserve(api, guest, stock(db, venue=name)).json()["id"] for name in ("lisbon", "porto"))
    both = bearing(key.token("business", venues=["lisbon", "porto"]))

    def listed(headers: dict[str, str], **query: str) -> Any:
        answer = api.get("/reservations", headers=headers, params=query).json()
        return [one["id"] for one in answer["reservations"]] if "reservations" in answer else answer["field"]

    assert listed(staff) == [porto, lisbon]
    assert listed(staff, venue="lisbon") == listed(both, venue="lisbon") == [lisbon]
    assert listed(both) == "venue"
    assert listed(bearing(key.token("business", venues=["porto"])), venue="lisbon") == []


@pytest.mark.parametrize("role", [Role.BUSINESS, Role.PROVIDER])
def test_a_host_of_nothing_reserves_nothing(api: httpx.Client, db: Db, key: SigningKey, role: Role) -> None:
    thing = stock(db)

    assert reserve(api, bearing(key.token(role)), thing).status_code == 403
