"""Stands in for grpcurl, which is a Go program and not to be had from the package index.

It is run as a program by the commands in the docs. Like grpcurl it knows nothing of licet: it asks
the server's reflection for the method, parses the JSON into the method's message and makes the
call, so a wrong name of a method or field fails here as it would there. It takes the options that
the docs use and no others. `LICET_TEST_GRPCURL=/path/to/grpcurl` runs the docs with the real one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

_TIMEOUT_SECONDS: Final = 20
_FAILED: Final = 64
"""What grpcurl adds to the number of the status."""


def main(arguments: list[str]) -> int:
    """Make the call that the arguments describe and print the answers."""
    options, data = list(arguments), ""
    if "-plaintext" not in options:
        sys.exit("a licet without TLS needs -plaintext")
    options.remove("-plaintext")
    if "-d" in options:
        position = options.index("-d")
        data = options[position + 1]
        del options[position : position + 2]
    address, what = options
    with grpc.insecure_channel(address) as channel:
        reflection = ProtoReflectionDescriptorDatabase(channel)
        if what == "list":
            sys.stdout.writelines(f"{name}\n" for name in sorted(reflection.get_services()))
            return 0
        service, _, name = what.partition("/")
        method = DescriptorPool(reflection).FindServiceByName(service).FindMethodByName(name)
        return call(channel, method, sys.stdin.read() if data == "@" else data)


def call(channel: grpc.Channel, method: MethodDescriptor, data: str) -> int:
    """Call a method with each object in `data`, print the answers, return the exit status."""
    request_class = GetMessageClass(method.input_type)
    messages = [json_format.ParseDict(body, request_class()) for body in objects(data or "{}")]
    path = f"/{method.containing_service.full_name}/{method.name}"
    kind = "stream_stream" if method.client_streaming else "unary_unary"
    invoke = getattr(channel, kind)(
        path,
        request_serializer=request_class.SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    try:
        if method.client_streaming:
            answers = list(invoke(iter(messages), timeout=_TIMEOUT_SECONDS))
        else:
            [message] = messages
            answers = [invoke(message, timeout=_TIMEOUT_SECONDS)]
    except grpc.RpcError as error:
        code, number = error.code(), error.code().value[0]
        name = "".join(word.capitalize() for word in code.name.split("_"))
        sys.stderr.write(f"ERROR:\n  Code: {name}\n  Message: {error.details()}\n")
        return _FAILED + number
    for answer in answers:
        sys.stdout.write(json_format.MessageToJson(answer, preserving_proto_field_name=True) + "\n")
    return 0


def objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects that stand one after the other in a text."""
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        yield value
        rest = rest[end:].strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
