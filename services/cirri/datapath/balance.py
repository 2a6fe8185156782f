"""Keep the load-balancing maps equal to Services and their ready endpoints."""

from __future__ import annotations

from collections.abc import Iterable

from cirri.datapath.frontends import Backends, Frontends, frontends, service_of
from cirri.datapath.kernel import Services, difference
from cirri.datapath.views import Views
from cirri.layout import LbServiceKey
from cirri.model import resource_key
from cirri.model.bucket import text_of

Name = tuple[str, str]
"""(namespace, name)"""


class Balancer:
    """Services of the cluster, as every node's socket programs need them."""

    def __init__(self, views: Views, services: Services) -> None:
        self.views, self.services = views, services
        self._dirty: set[Name] = set()
        self._realized: dict[Name, Frontends] = {}
        self._slices: dict[Name, set[str]] = {}
        """Keys of the slices of each Service."""
        self._owner: dict[str, Name] = {}
        self._swept = False
        self.faults: dict[Name, str] = {}
        """Services that cannot be understood, one sentence each."""

    def note_services(self, keys: Iterable[str]) -> None:
        """Services changed, by key of bucket ``resources``."""
        self._dirty.update(_name_in(key) for key in keys)

    def note_slices(self, keys: Iterable[str]) -> None:
        """EndpointSlices changed."""
        for key in keys:
            before = self._owner.pop(key, None)
            if before is not None:
                self._slices[before].discard(key)
                self._dirty.add(before)
            if (item := self.views.slices.get(key)) is not None:
                owner = self._owner[key] = service_of(item)
                self._slices.setdefault(owner, set()).add(key)
                self._dirty.add(owner)

    def step(self) -> None:
        """Write what follows from the news."""
        views = self.views
        if not (views.services.ready.is_set() and views.slices.ready.is_set()):
            return  # a Service without its slices would look as if nobody served it
        changes: dict[LbServiceKey, Backends | None] = {}
        dirty, self._dirty = self._dirty, set()
        for name in dirty:
            service = views.services.get(resource_key("Service", *name, node=""))
            slices = [s for key in self._slices.get(name, ()) if (s := views.slices.get(key)) is not None]
            self.faults.pop(name, None)
            try:
                wanted = frontends(service, slices) if service is not None else {}
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                self.faults[name] = f"Service {'/'.join(name)} stays as it was: {error!r} in it or its slices"
                continue
            changes |= difference(self._realized.pop(name, {}), wanted)
            if wanted:
                self._realized[name] = wanted
        if not self._swept:
            self._swept = True
            wanted_keys = {key for each in self._realized.values() for key in each}
            changes |= dict.fromkeys(self.services.copy.keys() - wanted_keys)
        if changes:
            self.services.apply(changes)


def _name_in(key: str) -> Name:
    _, namespace, name, _ = key.split(".")
    return text_of(namespace), text_of(name)
