"""CustomResourceDefinitions at an API server: made, kept new, and never taken from somebody else."""

import asyncio
import copy
from pathlib import Path
from typing import Any

import pytest

from cirri.kubernetes.bridge import definitions as module
from cirri.kubernetes.bridge.connect import Client
from cirri.kubernetes.bridge.definitions import install, verdict
from cirri.manifests.crd import definitions
from cirri.testing.apiserver import ApiServer, Fault


def test_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    said: list[tuple[str, dict[str, Any]]] = []

    async def run() -> None:
        first, second, *_ = definitions()
        async with ApiServer() as api:
            client = await Client.open(str(api.kubeconfig(tmp_path / "config")))
            try:
                foreign = copy.deepcopy(first)
                foreign["metadata"]["labels"] = {"owner": "somebody"}
                foreign["spec"]["versions"][0]["name"] = "v9"
                kept = api.put("CustomResourceDefinition", foreign)
                old = copy.deepcopy(second)
                del old["spec"]["names"]["categories"]
                api.put("CustomResourceDefinition", old)
                api.faults += [Fault("write", code=503), Fault("write", "cut")]
                await install(client, lambda event, **facts: said.append((event, facts)))
                there = {each["metadata"]["name"]: each for each in api.all("CustomResourceDefinition")}
                assert there.keys() == {each["metadata"]["name"] for each in definitions()}
                assert there[first["metadata"]["name"]] == kept
                assert there[second["metadata"]["name"]]["spec"] == second["spec"]
                before = api.memory.objects.revision
                await install(client, lambda event, **facts: None)
                assert api.memory.objects.revision == before, "nothing is written again"
            finally:
                await client.close()

        foreigners = [facts for event, facts in said if "somebody" in event]
        version = first["spec"]["versions"][0]["name"]
        assert foreigners == [
            {
                "name": first["metadata"]["name"],
                "lacks": f"does not serve version {version}, which is followed",
            }
        ]

    asyncio.run(run())


def test_what_a_server_fills_in_is_no_difference() -> None:
    wanted = definitions()[0]
    found = copy.deepcopy(wanted)
    found["spec"]["conversion"] = {"strategy": "None"}
    found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "filled in"
    assert verdict(wanted, found) == "keep"
