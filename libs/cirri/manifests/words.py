"""Scalars that several schemas share: names, labels, addresses, ports.

Sources: Kubernetes API conventions and RFC 1123 (names), RFC 6335 (port names).
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from cirri.labels import parse_prefix
from cirri.manifests.schema import Integer, IntegerOrText, MapOf, Text

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_SOURCE = re.compile(r"[a-z][-a-z0-9]*")

SUBDOMAIN_NAME = Text(
    _SUBDOMAIN,
    'lower-case letters, digits, "-" and ".", starting and ending with a letter or digit',
    low=1,
    high=253,
)
LABEL_NAME = Text(
    re.compile(_LABEL),
    'lower-case letters, digits and "-", starting and ending with a letter or digit',
    low=1,
    high=63,
)
SERVICE_NAME = Text(
    re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?"),
    'lower-case letters, digits and "-", starting with a letter',
    low=1,
    high=63,
)
PROTOCOL = Text(choices=("TCP", "UDP", "SCTP"))


def port_name_complaint(name: str) -> str:
    """What is wrong with *name* as a service name (RFC 6335), "" if nothing."""
    legal = (
        len(name) <= 15
        and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?", name)
        and "--" not in name
        and re.search("[A-Za-z]", name)
    )
    if legal:
        return ""
    return (
        f'"{name}" is not a port name; allowed: 1 to 15 letters, digits and single "-", '
        'with at least one letter, not starting or ending with "-"'
    )


def _lower_port_name_complaint(name: str) -> str:
    return port_name_complaint(name) or (
        f'"{name}" is not a port name of Kubernetes; write "{name.lower()}"' if name != name.lower() else ""
    )


PORT_NAME = Text(test=_lower_port_name_complaint)
PORT = Integer(1, 65535)
PORT_OR_NAME = IntegerOrText(PORT, PORT_NAME)


def label_key_complaint(key: str) -> str:
    """What is wrong with *key* as a label key ``[prefix/]name``, "" if nothing."""
    prefix, slash, name = key.rpartition("/")
    if slash and not (prefix and len(prefix) <= 253 and _SUBDOMAIN.fullmatch(prefix)):
        return (
            f'"{key}" is not a label key: before the "/" there must be a DNS name of at most 253 characters'
        )
    if len(name) <= 63 and _LABEL_NAME.fullmatch(name):
        return ""
    return (
        f'"{key}" is not a label key; allowed: at most 63 letters, digits, "-", "_" and ".", '
        'starting and ending with a letter or digit, after an optional DNS name and "/"'
    )


def sourced_key_complaint(key: str) -> str:
    """As :func:`label_key_complaint`, for a key with an optional source (``k8s:app``, ``$host``)."""
    source, colon, bare = key.partition(":")
    if not colon:
        return label_key_complaint(key.removeprefix("$"))
    if not _SOURCE.fullmatch(source):
        return f'"{key}": the label source before ":" must be a word such as k8s, any or reserved'
    return label_key_complaint(bare)


def label_value_complaint(value: str) -> str:
    """What is wrong with *value* as a label value, "" if nothing."""
    if not value or (len(value) <= 63 and _LABEL_NAME.fullmatch(value)):
        return ""
    return (
        f'"{value}" is not a label value; allowed: at most 63 letters, digits, "-", "_" and ".", '
        "starting and ending with a letter or digit"
    )


LABEL_VALUE = Text(test=label_value_complaint)
LABELS = MapOf(LABEL_VALUE, label_key_complaint)


def cidr_complaint(text: str) -> str:
    """What is wrong with *text* as an address or prefix, "" if nothing."""
    found = parse_prefix(text)
    return found if isinstance(found, str) else ""


def prefix_complaint(text: str) -> str:
    """What is wrong with *text* as a prefix with its length written out, "" if nothing."""
    found = parse_prefix(text, bare=False)
    return found if isinstance(found, str) else ""


def address_complaint(text: str) -> str:
    """What is wrong with *text* as one address, "" if nothing."""
    try:
        ip_address(text)
    except ValueError:
        return f'"{text}" is not an address, such as 10.0.0.1 or 2001:db8::1'
    return ""


ADDRESS = Text(test=address_complaint)
CIDR = Text(test=cidr_complaint)
PREFIX = Text(test=prefix_complaint)
