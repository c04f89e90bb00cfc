"""An example of each operation on health, for the OpenAPI document."""

from collections.abc import Mapping

from api.health.schemas import Liveness, Readiness
from api.http.openapi import Shown

OPERATIONS: Mapping[str, Shown] = {
    "live": Shown(answer=Liveness("ok")),
    "ready": Shown(answer=Readiness("ok", "ok", "ok", "ok", "ok")),
}
