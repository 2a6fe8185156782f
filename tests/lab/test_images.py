"""The catalogue of images."""

from pathlib import Path
from typing import Any

import pytest

from cirri.lab.images import PAUSE, READY_FD, environment, program, repository

RECORDS = Path("/run/records.json")


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("quay.io/cilium/starwars", "cilium/starwars"),
        ("quay.io/cilium/starwars:1.0", "cilium/starwars"),
        ("localhost:5000/cilium/starwars:1.0@sha256:00", "cilium/starwars"),
        ("docker.io/library/nginx", "library/nginx"),
        ("cilium/starwars@sha256:00", "cilium/starwars"),
        ("nginx:1.27", "nginx"),
        ("registry.k8s.io/coredns/coredns:v1.11.3", "coredns/coredns"),
    ],
)
def test_repository(image: str, expected: str) -> None:
    assert repository(image) == expected


def found(name: str) -> str | None:
    return {"sleep": "/usr/bin/sleep", "/bin/sh": "/bin/sh"}.get(name)


@pytest.mark.parametrize(
    ("container", "argv"),
    [
        ({"image": "k8s.gcr.io/whatever"}, PAUSE),
        ({"image": "x", "args": ["--flag"]}, PAUSE),
        ({"image": "x", "command": ["sleep", "1h"]}, ("/usr/bin/sleep", "1h")),
        ({"image": "x", "command": ["/busybox/sleep"], "args": ["5"]}, ("/usr/bin/sleep", "5")),
        ({"image": "x", "command": ["/bin/ash", "-c", "true"]}, ("/bin/sh", "-c", "true")),
        ({"image": "x", "command": ["nowhere"]}, ("nowhere",)),
        ({"image": "quay.io/cilium/starwars", "command": ["sleep", "1"]}, ("/usr/bin/sleep", "1")),
    ],
    ids=str,
)
def test_programs_of_unknown_images(container: dict[str, Any], argv: tuple[str, ...]) -> None:
    assert program(container, {}, RECORDS, found).argv == argv


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("quay.io/cilium/starwars", {"deathstar", "80"}),
        ("quay.io/cilium/json-mock:1.3", {"echo", "80"}),
        ("registry.k8s.io/coredns/coredns:v1", {"cirri.lab.programs.nameserver", str(RECORDS)}),
    ],
)
def test_programs_of_the_catalogue(image: str, words: set[str]) -> None:
    chosen = program({"image": image}, {}, RECORDS, found)

    assert words | {READY_FD} <= set(chosen.argv)
    assert chosen.says_ready


def test_port_by_environment() -> None:
    assert "8080" in program({"image": "quay.io/cilium/json-mock"}, {"PORT": "8080"}, RECORDS, found).argv


def test_environment() -> None:
    container = {
        "env": [
            {"name": "A", "value": "1"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "ODD", "valueFrom": {"fieldRef": {"fieldPath": "spec.odd"}}},
        ]
    }

    assert environment(container, {"spec.nodeName": "node1"}) == {"A": "1", "NODE": "node1", "ODD": ""}
