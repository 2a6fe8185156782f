"""Which identity nodes have: this one as a subject and local peer, the others as peers."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from pyroaring import BitMap

from cirri.datapath.identify import Config
from cirri.datapath.located import number_of
from cirri.datapath.views import Views
from cirri.labels import api_server_addresses, node_labels
from cirri.labels.nodes import NodeLabels
from cirri.model import NodeStatus
from cirri.model.bucket import token


class NodeNumbers:
    """Nodes' labels from the tables, and the numbers of these."""

    def __init__(self, node: str, views: Views) -> None:
        self.node, self.views = node, views
        self.config: Config | None = None
        """None until it has been read."""
        self.addresses: tuple[str, ...] = ()
        """This node's own."""
        self._api_servers: dict[str, frozenset[str]] = {}
        """Addresses by key of the EndpointSlice that names them."""
        self._of: dict[str, int] = {}
        """Numbers of the other nodes, by key of bucket ``nodes``; 0: not known."""
        self._host = 0
        self._slices_noted = False

    @property
    def ready(self) -> bool:
        """Whether all that labels follow from has been read, and noted where that is needed."""
        tables = (self.views.node_objects, self.views.identities)
        noted = self.config is not None and self._slices_noted
        return noted and all(table.ready.is_set() for table in tables)

    def note_slices(self, keys: Iterable[str]) -> bool:
        """EndpointSlices changed; True if API servers moved."""
        before = dict(self._api_servers) if self._slices_noted else None
        self._slices_noted = True
        for key in keys:
            self._api_servers.pop(key, None)
            found = self.views.slices.get(key)
            if found is not None and (addresses := api_server_addresses([found])):
                self._api_servers[key] = addresses
        return before != self._api_servers

    def concerned(self, identities: Iterable[str]) -> set[str]:
        """Nodes whose number may be another one, now that there is news of *identities*."""
        news = set(identities)
        if news and (not self._host or str(self._host) in news):
            self.moved()
        return {key for key, number in self._of.items() if news and (not number or str(number) in news)}

    def remote(self, key: str, status: NodeStatus) -> int:
        """Number of another node; 0: not known (yet)."""
        labels = self._labels(key, status.addresses).remote
        number = number_of(labels, self.views.identities) if self.ready else 0
        self._of[key] = number
        return number

    def others(self) -> BitMap:
        """Numbers of the other nodes, as far as they are known."""
        return BitMap(filter(None, self._of.values()))

    def host_labels(self) -> frozenset[str]:
        """What policies for nodes know this node by."""
        return self._labels(token(self.node), self.addresses).host

    @property
    def host(self) -> int:
        """Number of :meth:`host_labels`; 0: not known (yet)."""
        if not self._host and self.ready:
            self._host = number_of(self.host_labels(), self.views.identities)
        return self._host

    def moved(self) -> None:
        """What this node's labels follow from changed, or the identity that has them."""
        self._host = 0

    def _labels(self, key: str, addresses: Iterable[str]) -> NodeLabels:
        own = {str(ip_address(each)) for each in addresses}
        config = self.config or Config()
        engine = config.engine
        return node_labels(
            self.views.node_objects.get(f"Node._.{key}._"),
            sorted(own),
            config.filter,
            by_cidr=engine.nodes_by_cidr,
            by_labels=engine.nodes_by_labels,
            api_server=any(each & own for each in self._api_servers.values()),
        )
