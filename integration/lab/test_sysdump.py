"""``cirri sysdump`` of a lab: every page is there, and nothing secret is in any."""

import json
import zipfile
from pathlib import Path

from cirri.testing.lab import Lab

SECRET = """
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: default}
stringData: {token: hunter2-in-a-secret}
"""


def test_everything_but_what_is_secret(lab: Lab, tmp_path: Path) -> None:
    lab.apply(SECRET, wait=False)
    plan = json.loads((Path("/run/cirri") / lab.name / "plan.json").read_text())
    passwords = {
        p["env"]["CIRRI_NATS_PASSWORD"] for p in plan["processes"] if "CIRRI_NATS_PASSWORD" in p["env"]
    }
    assert len(passwords) > 5
    said = lab.cirri("sysdump", "--output-filename", str(tmp_path / "dump"), timeout_s=180)
    with zipfile.ZipFile(tmp_path / "dump.zip") as archive:
        pages = {name: archive.read(name).decode() for name in archive.namelist()}
    index = json.loads(pages.pop("index.json"))
    faults = {entry["page"]: entry["fault"] for entry in index if entry["fault"]}
    # `cirri status` says by its exit code that something is wrong in the cluster, which others use as well.
    assert {page for page in faults if not page.startswith("cirri/status.")} == set(), (faults, said)
    assert {entry["page"] for entry in index} == pages.keys()
    for secret in ("hunter2-in-a-secret", *passwords):
        assert [name for name, text in pages.items() if secret in text] == []
    assert '"keys"' in pages["buckets/resources.json"]
    assert "node1" in pages["cirri/status.txt"]
    assert len(json.loads(pages[f"network/cirri-{lab.name}-node2/links.txt"])) > 1
    assert any(name.startswith("logs/") and "datapath" in name for name in pages)
