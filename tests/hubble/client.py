"""A client of the public API that knows nothing of Cirri: classes of its own from protos of its own."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

PROTOS = Path(__file__).parent / "public"
INCLUDES = Path(protoc.__file__).parent / "_proto"


@cache
def pool() -> Any:
    """What ``public/`` declares."""
    with tempfile.TemporaryDirectory(prefix="cirri-test-protos-") as folder:
        out = Path(folder) / "public.binpb"
        files = [str(path) for path in sorted(PROTOS.glob("*/*.proto"))]
        words = ["protoc", f"-I{PROTOS}", f"-I{INCLUDES}", "--include_imports", f"--descriptor_set_out={out}"]
        assert protoc.main([*words, *files]) == 0
        found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    made = descriptor_pool.DescriptorPool()
    for file in found.file:
        made.Add(file)
    return made


def message(name: str) -> Any:
    """The class of message *name*."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


class Client:
    """Calls the services on a blocking channel."""

    def __init__(self, target: str, credentials: Any = None, options: Any = None) -> None:
        if credentials is None:
            self.channel = grpc.insecure_channel(target, options=options)
        else:
            self.channel = grpc.secure_channel(target, credentials, options=options)

    def call(self, service: str, method: str, timeout: float = 10, **fields: Any) -> Any:
        """The answer of *method* to a request with *fields*; an iterator if it streams."""
        described = pool().FindServiceByName(service).FindMethodByName(method)
        request, answer = (
            message_factory.GetMessageClass(kind) for kind in (described.input_type, described.output_type)
        )
        make = self.channel.unary_stream if described.server_streaming else self.channel.unary_unary
        call = make(
            f"/{service}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )
        return call(request(**fields), timeout=timeout)

    def flows(self, **fields: Any) -> list[Any]:
        """All flows that ``GetFlows`` tells."""
        return [each.flow for each in self.call("observer.Observer", "GetFlows", **fields)]

    def close(self) -> None:
        """Hang up."""
        self.channel.close()
