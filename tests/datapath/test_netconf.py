"""``understand`` takes what the specification allows and refuses the rest in words."""

import json
from typing import Any, NamedTuple

import pytest

from cirri.datapath.errors import CniFailure, InvalidEnvironment, Undecodable
from cirri.datapath.netconf import Attachment, CniRequest, understand

CONFIG = {"cniVersion": "1.1.0", "name": "cirri", "type": "cirri-cni"}
ENV = {
    "CNI_CONTAINERID": "c0ffee",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
}


class Case(NamedTuple):
    """A command with more in its configuration makes this request."""

    id: str
    command: str
    more: dict[str, Any]
    expected: CniRequest


ABOUT: dict[str, Any] = {"container": "c0ffee", "ifname": "eth0"}
CASES = [
    Case(
        "ADD",
        "ADD",
        {"dns": {"nameservers": ["10.0.0.1"]}, "args": {"x": 1}, "cni.dev/anything": True},
        CniRequest(
            command="ADD",
            version="1.1.0",
            **ABOUT,
            netns="/run/netns/x",
            namespace="default",
            pod="web",
            dns={"nameservers": ["10.0.0.1"]},
        ),
    ),
    Case("DEL", "DEL", {}, CniRequest(command="DEL", version="1.1.0", **ABOUT)),
    Case(
        "DEL of an old version",
        "DEL",
        {"cniVersion": "0.3.1"},
        CniRequest(command="DEL", version="0.3.1", **ABOUT),
    ),
    Case(
        "CHECK",
        "CHECK",
        {"prevResult": {"ips": []}},
        CniRequest(command="CHECK", version="1.1.0", **ABOUT, netns="/run/netns/x", previous={"ips": []}),
    ),
    Case("STATUS", "STATUS", {}, CniRequest(command="STATUS", version="1.1.0")),
    Case(
        "GC",
        "GC",
        {"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]},
        CniRequest(command="GC", version="1.1.0", attachments=(Attachment("a", "eth0"),)),
    ),
    Case("VERSION", "VERSION", {"cniVersion": "0.1.0"}, CniRequest(command="VERSION", version="0.1.0")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_understood(case: Case) -> None:
    request = understand({**ENV, "CNI_COMMAND": case.command}, json.dumps({**CONFIG, **case.more}))
    assert request == case.expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Input data was truncated"),
        ("hello", "JSON is malformed: invalid character (byte 0)"),
        ("[1]", "it is not an object"),
        ("null", "it is not an object"),
    ],
    ids=["nothing", "not JSON", "a list", "null"],
)
def test_what_is_no_object_is_undecodable(text: str, why: str) -> None:
    with pytest.raises(Undecodable) as caught:
        understand({**ENV, "CNI_COMMAND": "ADD"}, text)
    assert str(caught.value) == f"the network configuration is not JSON: {why}"


@pytest.mark.parametrize("name", [".", "..", "a/b", "a:b", "a b", "a\tb", "x" * 16])
def test_interface_names_that_linux_refuses_are_refused(name: str) -> None:
    with pytest.raises(InvalidEnvironment) as caught:
        understand({**ENV, "CNI_COMMAND": "DEL", "CNI_IFNAME": name}, json.dumps(CONFIG))
    assert caught.value.wrong.keys() == {"CNI_IFNAME"}


def test_every_failure_has_a_code_of_its_own() -> None:
    classes = CniFailure.__subclasses__()
    codes = [one.code for one in classes if one.__name__ != "Broken"]
    assert len(codes) == len(set(codes))
    assert {1, 2, 3, 4, 6, 7, 11, 50} <= set(codes)
