"""Mirror of ``bpf/lib/drop.h``: why a packet was dropped."""

from enum import IntEnum

HEADER = "lib/drop.h"


class DropReason(IntEnum):
    """Drop reasons; a program returns them negated.  Numbers and texts are Cilium's."""

    text: str

    def __new__(cls, number: int, text: str) -> "DropReason":
        """A reason with its number and the text shown to people."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.text = text
        return member

    INVALID_SOURCE_MAC = 130, "Invalid source mac"
    INVALID_SOURCE_IP = 132, "Invalid source ip"
    POLICY = 133, "Policy denied"
    INVALID = 134, "Invalid packet"
    CT_INVALID_HEADER = 135, "CT: Truncated or invalid header"
    UNKNOWN_L3 = 139, "Unsupported L3 protocol"
    UNKNOWN_L4 = 142, "Unknown L4 protocol"
    NO_TUNNEL_KEY = 147, "Error retrieving tunnel key"
    UNROUTABLE = 151, "Stale or unroutable IP"
    CT_CREATE_FAILED = 155, "CT: Map insertion failed"
    INVALID_EXTENSION_HEADER = 156, "Invalid IPv6 extension header"
    NO_BACKEND = 158, "Service backend not found"
    NO_TUNNEL_ENDPOINT = 160, "No tunnel/encapsulation endpoint"
    UNKNOWN_L2 = 166, "Unsupported L2 protocol"
    NAT_NO_MAPPING = 167, "No mapping for NAT masquerade"
    UNKNOWN_SENDER = 172, "Unknown sender"
    FRAGMENT_NOT_FOUND = 175, "First logical datagram fragment not found"
    FORBIDDEN_ICMP6 = 176, "Forbidden ICMPv6 message"
    SOURCE_RANGE = 177, "Denied by LB src range check"
    NO_PROXY = 178, "Socket lookup failed"
    PROXY_ASSIGN = 179, "Socket assign failed"
    PROXY_UNKNOWN_PROTO = 180, "Proxy redirection not supported for protocol"
    POLICY_DENY = 181, "Policy denied by denylist"
    VLAN_FILTERED = 182, "VLAN traffic disallowed by VLAN filter"
    POLICY_AUTH_REQUIRED = 189, "Authentication required"
    HOST_NOT_READY = 202, "Host datapath not ready"


def drop_text(number: int) -> str:
    """The text of reason *number*, of either sign; unknown ones by their number."""
    number = abs(number)
    try:
        reason: DropReason = DropReason._value2member_map_[number]  # type: ignore[assignment]
        return reason.text
    except KeyError:
        return f"reason {number}"


def drop_asserts() -> str:
    """C source that compiles only if the header's list equals :class:`DropReason` in numbers and texts."""
    lines = [f'#include "{HEADER}"']
    for reason in DropReason:
        lines.append(f'#define TEXT_OF_DROP_{reason.name} "{reason.text}"')
        lines.append(f'_Static_assert(DROP_{reason.name} == -{reason.value}, "DROP_{reason.name}");')
    # A reason that only C knows leaves TEXT_OF_… undefined, which does not compile either.
    lines += [
        "#define X(NAME, NUMBER, TEXT) _Static_assert(__builtin_strcmp(TEXT, TEXT_OF_##NAME) == 0, #NAME);",
        "DROP_REASONS(X)",
        "#undef X",
    ]
    return "\n".join(lines) + "\n"
