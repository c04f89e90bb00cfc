"""Fields that several resources have, with their bounds and an example of each."""

from typing import Annotated
from uuid import UUID

from msgspec import Meta

from domain.items import MAX_ID

ItemId = Annotated[int, Meta(ge=1, le=MAX_ID, examples=[1])]
Sku = Annotated[str, Meta(min_length=1, max_length=64, examples=["ROOM-101"])]

#: The item and the reservation of all examples in the OpenAPI document.
ITEM_ID, SKU = 1, "ROOM-DOUBLE"
RESERVATION_ID = UUID("01943bb1-8a00-7e3c-9d54-3f1c0b6a7e21")
