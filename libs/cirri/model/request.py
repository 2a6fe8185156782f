"""Requests to the services of nodes: what ``cirri.datapath.NODE.*`` carries, as MessagePack."""

from msgspec import Struct


class EndpointConfigRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``endpoint-config``: change how one endpoint of the node is treated."""

    endpoint: int
    """Its number on the node."""
    audit: bool | None = None
    """Whether what its policy drops passes and is reported; None: as the cluster's configuration says."""


class EndpointConfigReply(Struct, frozen=True, kw_only=True):
    """The answer."""

    error: str = ""
    """Why nothing has changed; empty: it is done, and stays over restarts."""
