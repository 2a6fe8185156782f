"""Netlink as short batches: pure messages, one socket per network namespace, few system calls.

pyroute2 knows the wire format; :mod:`wire` takes no more of it than that.

* :mod:`messages`  what is asked of the kernel, as bytes (pure)
* :mod:`wire`      pyroute2's message classes
* :mod:`channel`   a socket that sends a batch and collects its acknowledgements
* :mod:`namespace` network namespaces by path
* :mod:`pod`       the messages that make up a pod's device, addresses and routes (pure)
* :mod:`peers`     where the other ends of devices are
* :mod:`read`      what is there: links, routes, filters
* :mod:`sockets`   connected UDP sockets, to be ended
* :mod:`sysctl`    kernel switches of the namespace the caller is in
"""

from cirri.netlink.channel import Channel, Request
from cirri.netlink.errors import NamespaceGone, NetlinkRefused
from cirri.netlink.namespace import channel_in, inside, namespace, namespace_cookie

__all__ = [
    "Channel",
    "NamespaceGone",
    "NetlinkRefused",
    "Request",
    "channel_in",
    "inside",
    "namespace",
    "namespace_cookie",
]
