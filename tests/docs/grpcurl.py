"""Stands in for grpcurl, which is a Go program and not to be had from the package index.

It is run as a program by the commands in the docs. Like grpcurl it knows nothing of licet: it asks
the server's reflection for the method, parses the JSON into the method's message and makes the
call, so a wrong name of a method or field fails here as it would there. It takes the options that
the docs use and no others. `LICET_TEST_GRPCURL=/path/to/grpcurl` runs the docs with the real one.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

_TIMEOUT_SECONDS: Final = 20
_FAILED: Final = 64
"""What grpcurl adds to the number of the status."""


def main(arguments: list[str]) -> int:
    """Make the call that the arguments describe and print the answers."""
    options = list(arguments)
    credentials = credentials_of(options)
    data = value_of("-d", options) or ""
    metadata = header_of(options)
    seconds = float(value_of("-max-time", options) or _TIMEOUT_SECONDS)
    if "-unix" in options:
        options.remove("-unix")
        options[0] = f"unix:{options[0]}"
    address, what = options
    with (
        grpc.insecure_channel(address)
        if credentials is None
        else grpc.secure_channel(address, credentials)
    ) as channel:
        reflection = ProtoReflectionDescriptorDatabase(channel)
        if what == "list":
            sys.stdout.writelines(f"{name}\n" for name in sorted(reflection.get_services()))
            return 0
        service, _, name = what.partition("/")
        method = DescriptorPool(reflection).FindServiceByName(service).FindMethodByName(name)
        body = sys.stdin.read() if data == "@" else data
        return call(channel, method, body, seconds, metadata)


def header_of(options: list[str]) -> list[tuple[str, str]]:
    """Take a header out of the options; its variables are of the environment, and not on argv."""
    header = value_of("-H", options)
    if header is None:
        return []
    if "-expand-headers" not in options:
        sys.exit("what is on a command line everybody can see: -expand-headers")
    options.remove("-expand-headers")
    expanded = re.sub(r"\$\{(\w+)\}", lambda found: os.environ[found[1]], header)
    name, _, value = expanded.partition(": ")
    return [(name, value)]


def credentials_of(options: list[str]) -> grpc.ChannelCredentials | None:
    """Take the options of TLS out of the options; None: plain text."""
    names = ("-cacert", "-key", "-cert")
    found = [None if (p := value_of(name, options)) is None else Path(p) for name in names]
    ca, key, certificate = (None if path is None else path.read_bytes() for path in found)
    if ca is not None:
        return grpc.ssl_channel_credentials(ca, key, certificate)
    if "-plaintext" not in options:
        sys.exit("a licet without TLS needs -plaintext, one with a CA of its own -cacert")
    options.remove("-plaintext")
    return None


def value_of(option: str, options: list[str]) -> str | None:
    """Take an option and its value out of the options, and return the value."""
    if option not in options:
        return None
    position = options.index(option)
    value = options[position + 1]
    del options[position : position + 2]
    return value


def call(
    channel: grpc.Channel,
    method: MethodDescriptor,
    data: str,
    seconds: float,
    metadata: list[tuple[str, str]],
) -> int:
    """Call a method with each object in `data`, print the answers, return the exit status."""
    request_class = GetMessageClass(method.input_type)
    messages = [json_format.ParseDict(body, request_class()) for body in objects(data or "{}")]
    path = f"/{method.containing_service.full_name}/{method.name}"
    sent = "stream" if method.client_streaming else "unary"
    received = "stream" if method.server_streaming else "unary"
    invoke = getattr(channel, f"{sent}_{received}")(
        path,
        request_serializer=request_class.SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    try:
        answers = invoke(
            iter(messages) if method.client_streaming else only(messages),
            timeout=seconds,
            metadata=metadata,
        )
        # One by one: a stream may have no end but its deadline.
        for answer in answers if method.server_streaming else [answers]:
            shown = json_format.MessageToJson(answer, preserving_proto_field_name=True)
            sys.stdout.write(shown + "\n")
    except grpc.RpcError as error:
        code, number = error.code(), error.code().value[0]
        name = "".join(word.capitalize() for word in code.name.split("_"))
        sys.stderr.write(f"ERROR:\n  Code: {name}\n  Message: {error.details()}\n")
        return _FAILED + number
    return 0


def only(messages: list[Message]) -> Message:
    """Return the one message."""
    [message] = messages
    return message


def objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects that stand one after the other in a text."""
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        yield value
        rest = rest[end:].strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
