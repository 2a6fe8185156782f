"""What the network did, as it is kept: batches of rows on the stream of flows, each batch whole in itself.

A batch holds rows of one namespace and one verdict, so that permissions can be given by subject; rows
point into its tables by index + 1 (0: not known, or none).  The rows' layout is ``cirri.history.rows``.
"""

from typing import Literal, NamedTuple

from msgspec import Struct

from cirri.model.bucket import token
from cirri.model.origins import FlowProcesses
from cirri.model.records import L7Record

Verdict = Literal["forwarded", "dropped", "audited", "error"]
"""Of a whole batch; ``forwarded`` includes what a proxy was given (REDIRECTED)."""

FLOW_SUBJECTS = "cirri.flowlog"
"""Batches go to ``cirri.flowlog.NAMESPACE.VERDICT.NODE``."""
NO_NAMESPACE = "_"
"""For what no pod's policy decided on: nodes, the outside."""


class Log(NamedTuple):
    """A stream of the bus: messages in the order in which they were stored, each kept for a while."""

    name: str
    """Of JetStream's stream."""
    verdicts: tuple[str, ...]
    """The kinds of messages in it: of flows their :data:`Verdict`."""
    root: str = FLOW_SUBJECTS
    """Subjects are ``ROOT.NAMESPACE.KIND.NODE``."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """Of everything in it."""
        return tuple(f"{self.root}.*.{verdict}.*" for verdict in self.verdicts)


FORWARDED_LOG = Log("flowlog_forwarded", ("forwarded", "error"))
DROPPED_LOG = Log("flowlog_dropped", ("dropped", "audited"))
FLOW_LOGS = (FORWARDED_LOG, DROPPED_LOG)
"""Two, so that what was denied is kept longer than what passed."""


class Workload(Struct, frozen=True, kw_only=True, array_like=True):
    """What a pod belongs to."""

    kind: str
    """``Deployment``, ``DaemonSet``, ...; ``Pod`` for one that stands alone."""
    name: str


class End(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One end of a flow, as it was known when the flow was seen."""

    identity: int = 0
    labels: tuple[str, ...] = ()
    """Of the identity: ``k8s:app=web``, ``reserved:world``, sorted."""
    namespace: str = ""
    pod: str = ""
    """"": it is no pod of this cluster."""
    endpoint: int = 0
    """Number on the node that saw it; 0: it is not of that node."""
    node: str = ""
    """That it is on, if known."""
    workloads: tuple[Workload, ...] = ()
    cluster: str = ""


class ServiceRef(Struct, frozen=True, kw_only=True, array_like=True):
    """A Service under whose address an end was addressed."""

    namespace: str
    name: str


class RuleRef(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The policy object behind a verdict."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    section: str = ""
    labels: tuple[str, ...] = ()
    revision: int = 0
    """Of the object in bucket ``resources``; 0: not known."""
    log: str = ""


class FlowBatch(Struct, frozen=True, kw_only=True):
    """One message of the stream of flows."""

    node: str
    instance: int
    """64 random bits of the process that saw the flows; with a row's ``seq`` the flow's UUID."""
    number: int
    """Of the instance's batches, from 1: a gap is a batch that nobody kept."""
    namespace: str
    """Of the pod whose policy decided; "": none."""
    verdict: Verdict
    first_ns: int
    """Unix time of the earliest row."""
    last_ns: int
    lost: dict[str, int] = {}
    """By cause, since the instance's start: ``ring``: the kernel's ring was full; ``reader``: nobody read it;
    ``l7``: the proxies' records; ``stream``: rows that could not be stored."""
    rows: bytes = b""
    """``cirri.history.rows.ROW`` records, oldest first."""
    ends: tuple[End, ...] = ()
    names: tuple[tuple[str, ...], ...] = ()
    """DNS names under which an address was known to the pod."""
    services: tuple[ServiceRef, ...] = ()
    rules: tuple[RuleRef, ...] = ()
    l7: tuple[L7Record, ...] = ()
    processes: tuple[FlowProcesses, ...] = ()
    """Behind the ends, where the node's sensor knows."""


def flow_subject(namespace: str, verdict: str, node: str) -> str:
    """Where a batch goes; ``*`` stays, so that filters can be built with it."""
    parts = (part if part == "*" else token(part) for part in (namespace, verdict, node))
    return f"{FLOW_SUBJECTS}.{'.'.join(parts)}"
