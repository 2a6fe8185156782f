"""Addresses of LoadBalancer Services: from pools and Services to their statuses.  An edge."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec

from cirri.errors import CirriError
from cirri.ipam.statuses import Manifest, changed
from cirri.kv.news import News
from cirri.lbipam.config import has_pools_by_default
from cirri.manifests.api import APPLY, ApplyObject, ApplyReply, ApplyRequest
from cirri.model import RESOURCES, resource_key
from cirri.model.config import CONFIG, config_data
from cirri.runtime import Runtime

AT_ONCE = 100
"""Objects in one request."""
GATHER_S = 0.02
"""After a change, so that a file of many Services is looked at once."""
REQUEST_S, RETRY_S = 10.0, 0.5


class Refused(CirriError):
    """A status could not be written."""


async def run(rt: Runtime) -> None:
    """Keep statuses true, until cancelled."""
    services = rt.table(RESOURCES, resource_key("Service", "*"))
    pools = rt.table(RESOURCES, resource_key("CiliumLoadBalancerIPPool", "*"))
    namespaces = rt.table(RESOURCES, resource_key("Namespace", "*"))
    config = rt.table(RESOURCES, CONFIG)
    news = News({"services": services, "pools": pools, "namespaces": namespaces, "config": config})
    await news.next()
    while True:
        default = has_pools_by_default(config_data(config))
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        objects = (table.values() for table in (pools, services, namespaces))
        wanted = list(changed(*objects, default=default, now=now))
        try:
            for at in range(0, len(wanted), AT_ONCE):
                await _write(rt, wanted[at : at + AT_ONCE])
        except CirriError as error:
            rt.ready("addresses", ok=False, why=str(error))
            rt.log.warning("statuses cannot be written", error=str(error))
            await asyncio.sleep(RETRY_S)
            continue
        rt.ready("addresses", ok=True)
        await news.next()
        await asyncio.sleep(GATHER_S)
        news.take()


async def _write(rt: Runtime, manifests: list[Manifest]) -> None:
    """Statuses, all or nothing; what one that is gone by now spoils is tried again with the next news."""
    objects = tuple(ApplyObject(manifest=each, source="ipam") for each in manifests)
    request = ApplyRequest(objects=objects, status_only=True, update_only=True)
    reply = await rt.request(APPLY, msgspec.msgpack.encode(request), REQUEST_S)
    error = msgspec.msgpack.decode(reply, type=ApplyReply).error
    if error is not None:
        raise Refused(error)
    rt.log.info("addresses of Services", objects=len(manifests))
