"""What the lab's internet is told; that the servers understand it, they say themselves."""

import subprocess
from pathlib import Path
from random import Random

import dns.message
import dns.rdataclass
import dns.zone
import pytest
from dns.message import Message
from dns.update import UpdateMessage

from cirri.lab import internet
from cirri.lab.internet import CDN, records, write_files
from cirri.lab.programs import rotation
from cirri.lab.topology import Topology


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("internet")
    write_files(path, Topology("x", 1).host("internet"))
    return path


@pytest.mark.parametrize(
    "command",
    [
        ("knotc", "-c", "knot.conf", "conf-check"),
        ("unbound-checkconf", "unbound.conf"),
        ("nginx", "-t", "-q", "-e", "stderr", "-c", "{folder}/nginx.conf"),
        ("openssl", "verify", "-CAfile", "ca.crt", "-verify_hostname", "www.cdn.example.net", "site.crt"),
        ("openssl", "verify", "-CAfile", "ca.crt", "-verify_hostname", "api.github.com", "site.crt"),
    ],
    ids=" ".join,
)
def test_each_server_understands_its_configuration(folder: Path, command: tuple[str, ...]) -> None:
    argv = [word.format(folder=folder) for word in command]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_names_of_the_demo_have_addresses_of_both_families() -> None:
    world = dns.zone.from_text(records()["."], origin=".", relativize=False)

    for name in ("github.com.", "api.github.com.", "support.github.com."):
        found = {kind: world.find_rdataset(name, kind)[0].to_text() for kind in ("A", "AAAA")}
        number = internet.SITES[name[:-1]]
        assert found == {"A": f"203.0.113.{number}", "AAAA": f"2001:db8:113::{number:x}"}


def test_names_of_the_cdn_get_other_addresses() -> None:
    updates = [dns.message.from_wire(rotation.update(Random(seed))) for seed in (1, 2)]

    assert all(isinstance(update, UpdateMessage) for update in updates)
    first, second = (given(update) for update in updates)
    assert {name for name, _ in first} == {f"{name}.{CDN}." for name in internet.CDN_NAMES}
    assert all(len(addresses) == rotation.ADDRESSES for addresses in first.values())
    assert all(first[key] != second[key] for key in first)
    assert str(updates[0].sections[0][0].name) == f"{CDN}."


def given(update: Message) -> dict[tuple[str, int], set[str]]:
    """(name, type) -> addresses that *update* adds."""
    found: dict[tuple[str, int], set[str]] = {}
    for rrset in update.sections[2]:
        if rrset.rdclass == dns.rdataclass.IN:
            found.setdefault((str(rrset.name), rrset.rdtype), set()).update(map(str, rrset))
    return found
