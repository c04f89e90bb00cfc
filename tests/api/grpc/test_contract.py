"""The contract: it is the document's, and the generated modules are those of the contract."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from api.grpc.proto import reservation_pb2 as proto
from domain.reservations.lifecycle import Status
from domain.runtime.settings import ROOT

CONTRACT = ROOT / "api" / "grpc" / "proto"

#: The messages of the document, each with its fields in the order of their numbers.
MESSAGES = {
    "Reservation": ["id", "user_id", "status", "resource_id", "start", "end", "note"],
    "ReserveRequest": ["reservation"],
    "ReserveResponse": ["reservation"],
    "ConfirmRequest": ["id"],
    "ConfirmResponse": ["reservation"],
    "UpdateRequest": ["id", "status", "note"],
    "UpdateResponse": ["reservation"],
    "CancelRequest": ["id"],
    "CancelResponse": ["reservation"],
    "GetRequest": ["id"],
    "GetResponse": ["reservation"],
    "QueryRequest": ["user_id", "resource_id", "status", "start", "end"],
}

#: Its methods, in its spelling, and the one that streams.
METHODS = ["reserve", "confirm", "update", "cancel", "get", "Query"]


def test_the_messages_have_the_fields_and_numbers_of_the_document() -> None:
    messages = proto.DESCRIPTOR.message_types_by_name

    assert {name: [(field.name, field.number) for field in one.fields] for name, one in messages.items()} == {
        name: [(field, number) for number, field in enumerate(fields, 1)] for name, fields in MESSAGES.items()
    }


def test_the_service_has_the_methods_of_the_document_and_no_package() -> None:
    service = proto.DESCRIPTOR.services_by_name["ReservationService"]

    assert service.full_name == "ReservationService"
    assert [method.name for method in service.methods] == METHODS
    assert [method.name for method in service.methods if method.server_streaming] == ["Query"]


def test_the_first_statuses_have_the_numbers_of_the_document_and_every_other_status_has_one() -> None:
    numbers = dict(proto.ReservationStatus.items())

    assert [name for name, number in numbers.items() if number <= 3] == ["UNKNOWN", "PENDING", "CONFIRMED", "BLOCKED"]
    assert {name for name, number in numbers.items() if number} == set(Status)


@pytest.mark.slow
def test_the_generated_modules_are_those_of_the_contract(tmp_path: Path) -> None:
    command = re.search(r"^    bin/python -m (grpc_tools\.protoc .*)$", (ROOT / "docs" / "grpc.md").read_text(), re.M)
    assert command is not None
    arguments = command[1].replace("_out=.", f"_out={tmp_path}").split()

    subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, check=True)

    made = {path.name: path.read_text() for path in (tmp_path / "api" / "grpc" / "proto").iterdir()}
    assert made == {path.name: path.read_text() for path in CONTRACT.glob("*_pb2*")}
