"""What a node's datapath service tells the node's proxies, and what they tell it, over a unix socket.

``model`` is the language, ``wire`` how it is written, ``server`` the datapath service's end, ``client``
a proxy's.
"""

from cirri.proxies.client import ProxiesClient
from cirri.proxies.model import (
    DNS_PORT,
    Ask,
    Direction,
    DnsRule,
    Listener,
    NameSelector,
    NodeProxies,
    Number,
    ProxyEndpoint,
    Refused,
    Serving,
)
from cirri.proxies.server import ProxiesServer
from cirri.proxies.wire import AskRefused, Garbled

SOCKET = "proxies.sock"
"""In the run directory."""

__all__ = [
    "DNS_PORT",
    "SOCKET",
    "Ask",
    "AskRefused",
    "Direction",
    "DnsRule",
    "Garbled",
    "Listener",
    "NameSelector",
    "NodeProxies",
    "Number",
    "ProxiesClient",
    "ProxiesServer",
    "ProxyEndpoint",
    "Refused",
    "Serving",
]
