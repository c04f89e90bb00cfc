"""A client that knows nothing of a gRPC service: it calls a method by reflection, with the arguments of grpcurl."""

import argparse
import json
import sys
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main() -> int:
    options = argparse.ArgumentParser(prog="grpcurl")
    options.add_argument("-plaintext", action="store_true", required=True)
    options.add_argument("-H", dest="headers", action="append", default=[])
    options.add_argument("-d", dest="data", default="{}")
    options.add_argument("address")
    options.add_argument("method")
    given = options.parse_args()
    service, _, name = given.method.partition("/")
    metadata = tuple(
        (key.lower(), value.strip()) for key, _, value in (header.partition(":") for header in given.headers)
    )
    try:
        print(json.dumps(call(given.address, service, name, json.loads(given.data), metadata), indent=2))
    except grpc.RpcError as error:
        print(f"ERROR:\n  Code: {error.code().name}\n  Message: {error.details()}", file=sys.stderr)
        return 1
    return 0


def call(
    address: str, service: str, name: str, data: dict[str, Any], metadata: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    """Call a method, and return its answer."""
    with grpc.insecure_channel(address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName(service).FindMethodByName(name)
        request, response = (GetMessageClass(one) for one in (method.input_type, method.output_type))
        unary = channel.unary_unary(f"/{service}/{name}", request.SerializeToString, response.FromString)
        answer = unary(ParseDict(data, request()), metadata=metadata)
        found: dict[str, Any] = MessageToDict(answer, preserving_proto_field_name=True)
        return found


if __name__ == "__main__":
    sys.exit(main())
