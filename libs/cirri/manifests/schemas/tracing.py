"""TracingPolicy and TracingPolicyNamespaced: what programs do, told and stopped where the kernel has hooks.

The schema is the field's; what of it the running kernels serve, each node's sensor says
(``cirri tracingpolicy list``).
"""

from __future__ import annotations

from cirri.manifests.schema import BOOLEAN, TEXT, Fields, Integer, Items, Text, unread
from cirri.manifests.schemas.meta import SELECTOR, STATUS, metadata

_VALUES = Items(TEXT, high=64)
_OPERATOR = Text(
    choices=(
        *(
            "Equal",
            "NotEqual",
            "Prefix",
            "NotPrefix",
            "Postfix",
            "NotPostfix",
            "Mask",
            "In",
            "NotIn",
            "GT",
            "LT",
        ),
        *("GreaterThan", "LessThan", "SPort", "NotSPort", "SPortPriv", "NotSportPriv", "DPort", "NotDPort"),
        *(
            "DPortPriv",
            "NotDPortPriv",
            "SAddr",
            "NotSAddr",
            "DAddr",
            "NotDAddr",
            "Protocol",
            "Family",
            "State",
        ),
        *(
            "InMap",
            "NotInMap",
            "CapabilitiesGained",
            "InRange",
            "NotInRange",
            "SubString",
            "SubStringIgnCase",
        ),
        *("FileType", "NotFileType", "CelExpr"),
    )
)
_ARG = Fields(
    {
        "index": Integer(0, 5),
        "type": TEXT,
        "label": TEXT,
        "returnCopy": BOOLEAN,
        "maxData": BOOLEAN,
        "resolve": TEXT,
        "sizeArgIndex": Integer(0, 6),
    },
    required=("index", "type"),
)
_MATCH_ARG = Fields(
    {"index": Integer(0, 5), "args": Items(Integer(0, 5)), "operator": _OPERATOR, "values": _VALUES},
    required=("operator",),
)
_MATCH_PID = Fields(
    {
        "operator": Text(choices=("In", "NotIn")),
        "values": Items(Integer(0, 2**32 - 1), low=1, high=16),
        "followForks": BOOLEAN,
        "isNamespacePID": BOOLEAN,
    },
    required=("operator", "values"),
)
_MATCH_BINARY = Fields(
    {"operator": _OPERATOR, "values": _VALUES, "followChildren": BOOLEAN}, required=("operator", "values")
)
_ACTION = Fields(
    {
        "action": Text(
            choices=(
                *(
                    "Post",
                    "NoPost",
                    "Sigkill",
                    "Signal",
                    "Override",
                    "NotifyEnforcer",
                    "NotifyKiller",
                    "FollowFD",
                ),
                *("UnfollowFD", "CopyFD", "GetUrl", "DnsLookup", "TrackSock", "UntrackSock"),
                *("CleanupEnforcerNotification", "Set"),
            )
        ),
        "argSig": Integer(1, 64),
        "argError": Integer(-4095, 4095),
        **unread("argFd argName argUrl argFqdn argSock argIndex argValue rateLimit rateLimitScope"),
        **unread("kernelStackTrace userStackTrace imaHash"),
    },
    required=("action",),
)
_SELECTOR = Fields(
    {
        "matchArgs": Items(_MATCH_ARG),
        "matchPIDs": Items(_MATCH_PID),
        "matchBinaries": Items(_MATCH_BINARY),
        "matchActions": Items(_ACTION),
        **unread("matchData matchReturnArgs matchReturnActions matchParentBinaries matchNamespaces"),
        **unread("matchCapabilities matchNamespaceChanges matchCapabilityChanges matchCurrentCred"),
        **unread("matchWorkloads macros"),
    }
)
_KPROBE = Fields(
    {
        "call": Text(low=1),
        "syscall": BOOLEAN,
        "args": Items(_ARG),
        "return": BOOLEAN,
        "selectors": Items(_SELECTOR, high=5),
        "message": Text(high=256),
        "tags": Items(TEXT, high=16),
        **unread("returnArg returnArgAction data ignore"),
    },
    required=("call",),
    defaults={"syscall": True},
)
_SPEC = Fields(
    {
        "kprobes": Items(_KPROBE),
        "podSelector": SELECTOR,
        **unread("tracepoints uprobes usdts lsmhooks fentries loader lists enforcers options"),
        **unread("containerSelector hostSelector nodeSelector selectorsMacros"),
    }
)


def _of(kind: str, *, namespaced: bool) -> Fields:
    return Fields(
        {
            "apiVersion": TEXT,
            "kind": TEXT,
            "metadata": metadata(kind, namespaced=namespaced),
            "spec": _SPEC,
            "status": STATUS,
        },
        required=("metadata", "spec"),
    )


TRACING_POLICY = _of("TracingPolicy", namespaced=False)
TRACING_POLICY_NAMESPACED = _of("TracingPolicyNamespaced", namespaced=True)
