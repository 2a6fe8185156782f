"""Methods of services that are declared in protos, for gRPC's servers and clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from cirri.protos import Methods


def handlers(declared: Methods, by: Mapping[str, Any]) -> dict[str, Any]:
    """What gRPC calls for the *declared* methods; one that nobody gives is not implemented."""
    found = {}
    for name, (request, answer, streams) in declared.items():
        if name not in by:
            continue
        make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        found[name] = make(
            by[name], request_deserializer=request.FromString, response_serializer=answer.SerializeToString
        )
    return found


def stub(channel: Any, declared: Methods, service: str) -> Any:
    """An object with the *declared* methods of *service* on *channel*."""
    calls = {}
    for name, (request, answer, streams) in declared.items():
        make = channel.unary_stream if streams else channel.unary_unary
        calls[name] = make(
            f"/{service}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )
    return type(service.rpartition(".")[2], (), {name: staticmethod(call) for name, call in calls.items()})()
