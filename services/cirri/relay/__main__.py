"""``cirri-relay``: read this file to see what the service is made of."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.metadata import version

from cirri.kv.news import News
from cirri.model import NODES, RESOURCES
from cirri.model.config import CONFIG, config_data
from cirri.model.observing import observing
from cirri.relay import SERVICE
from cirri.runtime import Runtime, run

SETTLE_S = 1.0
"""After the start, others first: nobody waits for the relay, and what it imports takes half a second."""
LOOK_S = 10.0
"""Between looks at the certificates' files, and attempts to listen."""
SOCKET = "hubble-relay.sock"


async def serve(rt: Runtime) -> None:
    """Tell the cluster's flows until cancelled."""
    await asyncio.sleep(SETTLE_S)
    await asyncio.to_thread(import_module, "cirri.relay.server")  # meanwhile it says how it is
    from cirri.history import stream
    from cirri.hubble.facts import Place
    from cirri.hubble.messages import OBSERVER
    from cirri.hubble.node import peers
    from cirri.hubble.serving import Sockets
    from cirri.hubble.tls import TlsFiles
    from cirri.relay.pool import Pool
    from cirri.relay.server import Relay
    from cirri.runtime.gauges import Gauges

    said = version("cirri")
    pool, place = Pool(), Place(rt.settings.cluster, said)
    relay = Relay(pool, partial(stream.read, rt.bus), place, f"cirri {said}")
    sockets = Sockets(
        {OBSERVER: relay.methods()},
        rt.settings.run_dir / SOCKET,
        lambda error: rt.log.error("certificate is not taken", error=str(error)),
    )
    gauges = {
        "nodes": ("Nodes of the cluster", lambda: len(pool.nodes)),
        "nodes_connected": (
            "Nodes that can be asked",
            lambda: sum(node.available for node in pool.nodes.values()),
        ),
        "followers": ("Clients that follow", lambda: relay.following),
        "told": ("Flows told to clients", lambda: relay.told),
    }
    rt.metrics.register(Gauges(SERVICE.name, gauges))
    config, nodes = rt.table(RESOURCES, CONFIG, needed=False), rt.table(NODES, needed=False)
    news = News({"config": config, "nodes": nodes})
    await sockets.start()
    try:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await news.next()
            data = config_data(config)
            settings, wrong = observing(data)
            place.cluster = data.get("cluster-name") or rt.settings.cluster
            relay.window_s = settings.sort_window_s
            client = settings.relay_client_tls
            files = TlsFiles(client.certificate, client.key, client.ca) if client.ca is not None else None
            await pool.want(peers(nodes, settings, place) if settings.port else {}, files)
            why = await sockets.want(settings.relay_listen, settings.relay_tls)
            faults = [text for text in (*map(str, wrong), why, pool.fault) if text]
            rt.ready("relaying", not faults, "; ".join(faults))
    finally:
        await sockets.close()
        await pool.close()


def main() -> None:
    """Entry point."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
