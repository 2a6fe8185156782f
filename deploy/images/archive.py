"""``archive.py LAYOUT TAR``: one tar of all images of an OCI layout, each layer once, and what each weighs.

It is what ``ctr -n k8s.io images import``, ``podman load`` and ``skopeo copy oci-archive:`` read.
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

REF = "org.opencontainers.image.ref.name"
CONTAINERD = "io.containerd.image.name"
"""containerd takes an image's full name from here; without it, only from names with a registry."""


def blob(layout: Path, digest: str) -> Path:
    """Where the layout keeps *digest*."""
    return layout / "blobs" / digest.replace(":", "/", 1)


def layers(layout: Path, described: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers of an image of ``index.json``."""
    found: list[dict[str, Any]] = json.loads(blob(layout, described["digest"]).read_text())["layers"]
    return found


def sizes(layout: Path, manifests: list[dict[str, Any]]) -> list[str]:
    """A table in MB: each image, and what of it no other image has; all together, each layer once."""
    stacks = {m["annotations"][REF]: layers(layout, m) for m in manifests}
    count = Counter(digest for stack in stacks.values() for digest in {one["digest"] for one in stack})
    weight = {one["digest"]: one["size"] for stack in stacks.values() for one in stack}
    lines = [f"{'image':<28} {'MB':>6} {'own':>6}"]
    for name, stack in sorted(stacks.items()):
        own = sum(one["size"] for one in stack if count[one["digest"]] == 1)
        lines.append(f"{name:<28} {sum(one['size'] for one in stack) / 1e6:6.0f} {own / 1e6:6.1f}")
    return [*lines, f"{'all, shared layers once':<28} {sum(weight.values()) / 1e6:6.0f}"]


def main(layout: Path, out: Path) -> None:
    """Name the images for containerd, write the tar, print the table."""
    path = layout / "index.json"
    index = json.loads(path.read_text())
    for one in index["manifests"]:
        one["annotations"][CONTAINERD] = f"docker.io/{one['annotations'][REF]}"
    path.write_text(json.dumps(index))
    with tarfile.open(out, "w") as tar:
        for name in ("oci-layout", "index.json", "blobs"):
            tar.add(layout / name, name)
    sys.stdout.write("\n".join(sizes(layout, index["manifests"])) + f"\n{out}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
