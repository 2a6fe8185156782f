"""What a CNI command prints.  Pure.

Source: CNI specification 1.1.0, section 5 (result types); before 1.0.0 an address also names
its IP version.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cirri.datapath.errors import CniFailure
from cirri.datapath.netconf import VERSIONS, CniRequest
from cirri.netlink.pod import GATEWAY4, GATEWAY6, PodDevice


def added(request: CniRequest, device: PodDevice) -> str:
    """The result of ADD."""
    outside: dict[str, Any] = {"name": device.outside, "mac": device.outside_mac}
    inside: dict[str, Any] = {"name": device.inside, "mac": device.mac, "sandbox": request.netns}
    if request.version >= "1.1.0":
        outside["mtu"] = inside["mtu"] = device.mtu
    ips, routes = [], []
    for address in device.addresses:
        gateway = str(GATEWAY4 if address.version == 4 else GATEWAY6)
        ip: dict[str, Any] = {
            "address": f"{address}/{address.max_prefixlen}",
            "gateway": gateway,
            "interface": 1,
        }
        if request.version < "1.0.0":
            ip["version"] = str(address.version)
        ips.append(ip)
        routes.append({"dst": "0.0.0.0/0" if address.version == 4 else "::/0", "gw": gateway})
    return _json(
        {
            "cniVersion": request.version,
            "interfaces": [outside, inside],
            "ips": ips,
            "routes": routes,
            "dns": request.dns,
        }
    )


def versions(request: CniRequest) -> str:
    """The result of VERSION."""
    return _json({"cniVersion": request.version, "supportedVersions": VERSIONS})


def failed(version: str, error: CniFailure) -> str:
    """What is printed beside the exit code *error.code*."""
    return _json({"cniVersion": version, "code": error.code, "msg": str(error)})


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode() + "\n"
