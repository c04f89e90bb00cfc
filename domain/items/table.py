"""The table of items: what can be reserved, and how much of it there is."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Integer,
    String,
    Table,
    UniqueConstraint,
    func,
)

from domain.runtime.database import metadata

#: What PostgreSQL's `integer` holds; more units of one thing than anyone stores.
MAX_QUANTITY = 2_147_483_647

#: What PostgreSQL's `bigint` holds.
MAX_ID = 2**63 - 1

#: The constraint that a second item with the same sku breaks.
SKU_IS_UNIQUE = "uq_items_sku"

items = Table(
    "items",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("sku", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("available_quantity", Integer, nullable=False, server_default="0"),
    Column("stock_quantity", Integer, nullable=False, server_default="0"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    UniqueConstraint("sku", name=SKU_IS_UNIQUE),
    CheckConstraint("available_quantity >= 0", name="never_oversold"),
    CheckConstraint("available_quantity <= stock_quantity", name="available_within_stock"),
    # A hot item is rewritten at each commit; with room on its page that touches no index.
    postgresql_with={"fillfactor": 50},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """`stock_quantity` is all that was ever put in; `available_quantity` what nobody holds and nobody has used up."""

    id: int
    sku: str
    name: str
    available_quantity: int
    stock_quantity: int
    created_at: datetime
    updated_at: datetime
