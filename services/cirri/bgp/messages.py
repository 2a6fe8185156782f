"""The messages of GoBGP's API that are used here, as classes made from ``protos/``.

Annotations say ``Any``: the classes exist only when the protos have been compiled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import message_factory

from cirri import protos

SERVICE = "apipb.GobgpApi"


POOL: Any = protos.load(Path(__file__).parent / "build" / "gobgp.binpb")


def message(name: str, package: str = "apipb") -> Any:
    """The class of GoBGP's message *name*.  Raises: KeyError."""
    return protos.message_class(POOL, f"{package}.{name}")


Rpc = tuple[str, Any, Any, bool, bool]
"""(path, request, answer, whether requests and whether answers are streamed)."""


def rpcs() -> dict[str, Rpc]:
    """Each call of the API, by name."""
    found = POOL.FindServiceByName(SERVICE)
    return {
        method.name: (
            f"/{SERVICE}/{method.name}",
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
            method.client_streaming,
            method.server_streaming,
        )
        for method in found.methods
    }


Global, Peer, Path_, Family = message("Global"), message("Peer"), message("Path"), message("Family")
Policy, DefinedSet = message("Policy"), message("DefinedSet")
PolicyAssignment = message("PolicyAssignment")
IPAddressPrefix, OriginAttribute = message("IPAddressPrefix"), message("OriginAttribute")
NextHopAttribute, MpReachNLRIAttribute = message("NextHopAttribute"), message("MpReachNLRIAttribute")
AsPathAttribute, MultiExitDiscAttribute = message("AsPathAttribute"), message("MultiExitDiscAttribute")
LocalPrefAttribute, CommunitiesAttribute = message("LocalPrefAttribute"), message("CommunitiesAttribute")
LargeCommunitiesAttribute = message("LargeCommunitiesAttribute")
Any_ = message("Any", "google.protobuf")
