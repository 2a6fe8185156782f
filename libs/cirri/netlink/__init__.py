"""Netlink as short batches: pure messages, one socket per network namespace, few system calls.

pyroute2 knows the wire format; its import costs 0.15 s and 24 MB, so only :mod:`messages`
and :mod:`read` touch it and services import those two late.

* :mod:`messages`  what is asked of the kernel, as bytes (pure)
* :mod:`channel`   a socket that sends a batch and collects its acknowledgements
* :mod:`namespace` network namespaces by path
* :mod:`pod`       the messages that make up a pod's device, addresses and routes (pure)
* :mod:`read`      what is there: links, routes, filters
* :mod:`sysctl`    kernel switches of the namespace the caller is in
"""

from cirri.netlink.channel import Channel, Request
from cirri.netlink.errors import NamespaceGone, NetlinkRefused
from cirri.netlink.namespace import channel_in, namespace

__all__ = ["Channel", "NamespaceGone", "NetlinkRefused", "Request", "channel_in", "namespace"]
