"""What proxies saw: one record for each request and each answer, told on the bus to whoever listens.

Batches go to ``cirri.l7.NODE``, and nothing keeps them: who is late has missed them, and sees that by
the batches' numbers.
"""

from typing import Literal

from msgspec import Struct

L7_RECORDS = "l7"
"""Of :attr:`cirri.runtime.contract.Service.tells`: records go to ``cirri.l7.NODE``."""

RecordType = Literal["request", "response"]
Verdict = Literal["forwarded", "dropped", "redirected", "error"]
"""``dropped``: the policy refused it; ``error``: it could not be understood, or the server did not answer."""


class HttpFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request, or the answer to it."""

    method: str = ""
    url: str = ""
    """``http://HOST/PATH?QUERY``, with the path that was decided on."""
    protocol: str = ""
    """``HTTP/1.1``, ``HTTP/2``."""
    code: int = 0
    """Of an answer; 0: there was none."""
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class DnsFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question, or the answer to it."""

    query: str = ""
    qtypes: tuple[str, ...] = ()
    rcode: int = 0
    ips: tuple[str, ...] = ()
    cnames: tuple[str, ...] = ()
    ttl: int = 0
    """Seconds, the least of the answer's."""


class TlsFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A TLS connection that was not decrypted, or the one that a request came in."""

    server_name: str = ""
    """The name that the client asked for; "": none, or it was no TLS."""


class L7Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request or an answer, as a proxy saw it."""

    time: int
    """Unix time in nanoseconds."""
    node: str
    type: RecordType
    verdict: Verdict
    direction: Literal["ingress", "egress"]
    endpoint: int = 0
    """Number on the node of the pod whose policy decided; 0: it is gone."""
    source: str = ""
    """``ADDRESS:PORT`` of the client, ``[ADDRESS]:PORT`` for IPv6."""
    destination: str = ""
    """Of the server, likewise."""
    source_identity: int = 0
    """0: not known."""
    destination_identity: int = 0
    latency_ns: int = 0
    """Of an answer: since the request came; 0 otherwise."""
    rule: int = 0
    """Cookie of the rule that let it pass; 0: none did."""
    log: str = ""
    """``log.value`` of that rule's spec."""
    message: str = ""
    """What else there is to say: a mismatching header that was only to be logged, why it failed."""
    http: HttpFacts | None = None
    dns: DnsFacts | None = None
    tls: TlsFacts | None = None


class L7Batch(Struct, frozen=True, kw_only=True):
    """One message on ``cirri.l7.NODE``."""

    node: str
    proxy: str
    """The service that says so: ``l7proxy``, ``dnsproxy``."""
    instance: str
    """Which process of it."""
    number: int
    """Of the instance's batches, from 1: a gap is a batch that did not arrive."""
    lost: int = 0
    """Records that this instance could not tell, since its start."""
    told: int = 0
    """Records of its earlier batches, those that did not arrive among them."""
    records: tuple[L7Record, ...] = ()
