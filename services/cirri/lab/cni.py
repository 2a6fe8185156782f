"""Call the CNI plugin as a container runtime does.  An edge, but for the configuration."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cirri.errors import CirriError

Command = Literal["ADD", "DEL", "CHECK"]


class PluginFailed(CirriError):
    """The plugin answered with an error."""

    def __init__(self, command: Command, pod: str, code: int, said: str) -> None:
        super().__init__(f"CNI {command} of {pod} failed (code {code}): {said}")
        self.code, self.said = code, said


def netconf(configuration: Mapping[str, Any], previous: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a runtime passes to the list's first plugin on stdin (CNI specification, section 3).  Pure."""
    plugin = dict(configuration["plugins"][0])
    plugin |= {"cniVersion": configuration["cniVersion"], "name": configuration["name"]}
    return plugin | ({"prevResult": dict(previous)} if previous else {})


def arguments(*, namespace: str, name: str, uid: str, container_id: str) -> str:
    """``CNI_ARGS`` as Kubernetes' runtimes pass them.  Pure."""
    pairs = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": namespace,
        "K8S_POD_NAME": name,
        "K8S_POD_INFRA_CONTAINER_ID": container_id,
        "K8S_POD_UID": uid,
    }
    return ";".join(f"{key}={value}" for key, value in pairs.items())


def addresses(result: Mapping[str, Any]) -> list[str]:
    """The pod's addresses of an ADD result, IPv4 first, without prefix lengths.  Pure."""
    found = [entry["address"].partition("/")[0] for entry in result.get("ips") or []]
    return sorted(found, key=lambda a: ":" in a)


async def call(
    plugin: Path,
    command: Command,
    config: Mapping[str, Any],
    *,
    container_id: str,
    netns: Path,
    args: str,
    pod: str,
) -> dict[str, Any]:
    """Run the plugin; its result, {} if it printed none."""
    env = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": str(netns),
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": args,
        "CNI_PATH": str(plugin.parent),
        "PATH": os.environ.get("PATH", os.defpath),
    }
    process = await asyncio.create_subprocess_exec(
        plugin,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
    )
    out, err = await process.communicate(json.dumps(config).encode())
    try:
        said: dict[str, Any] = json.loads(out) if out.strip() else {}
    except ValueError:
        said = {"msg": out.decode(errors="replace").strip()}
    if process.returncode:
        text = "; ".join(filter(None, (str(said.get("msg", "")), str(said.get("details", "")))))
        code = said.get("code")
        raise PluginFailed(
            command,
            pod,
            code if isinstance(code, int) else process.returncode,
            text or err.decode(errors="replace").strip(),
        )
    return said
