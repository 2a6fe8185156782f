"""What ``cirri observe`` should show of the demo, line by line.  Pure.

Times, ports, numbers of identities and the ends of pods' names are as they come; all else is exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

REQUESTS = "POST FORWARDED, answered 200; PUT DROPPED, answered 403"
DROPS = "tiefighter's PUT, then pairs of verdict and drop of the xwing's SYN"
PUT_DROPPED, SYN_DENIED, SYN_DROPPED = "PUT DROPPED", "SYN DENIED", "SYN DROPPED"

_STAMP = r"[A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d\.\d{3}"
_SHIP = r"default/(?:tiefighter|xwing):\d+ \(ID:\d+\)"
_DEATHSTAR = r"default/deathstar-[0-9a-z-]+:80 \(ID:\d+\)"
_URL = r"http://deathstar\.default\.svc\.cluster\.local/v1/"
_KINDS = {
    rf"http-request FORWARDED \(HTTP/1\.1 POST {_URL}request-landing\)": ("->", "POST FORWARDED"),
    rf"http-response FORWARDED \(HTTP/1\.1 200 \d+ms \(POST {_URL}request-landing\)\)": (
        "<-",
        "answered 200",
    ),
    rf"http-request DROPPED \(HTTP/1\.1 PUT {_URL}exhaust-port\)": ("->", PUT_DROPPED),
    rf"http-response FORWARDED \(HTTP/1\.1 403 \d+ms \(PUT {_URL}exhaust-port\)\)": ("<-", "answered 403"),
    r"policy-verdict:none INGRESS DENIED \(TCP Flags: SYN\)": ("<>", SYN_DENIED),
    r"Policy denied DROPPED \(TCP Flags: SYN\)": ("<>", SYN_DROPPED),
}
_LINES = [
    (re.compile(f"{_STAMP}: {_SHIP} {re.escape(arrow)} {_DEATHSTAR} {rest}"), meaning)
    for rest, (arrow, meaning) in _KINDS.items()
]


def told(output: str) -> Iterator[str]:
    """What each line says; a line that is not as it should be, whole."""
    for line in output.splitlines():
        yield next((meaning for pattern, meaning in _LINES if pattern.fullmatch(line)), line)


def requests(output: str) -> str:
    """What was asked of the Death Star and answered: :data:`REQUESTS` if all is well."""
    lines = list(told(output))
    return "; ".join(", ".join(lines[at : at + 2]) for at in range(0, len(lines), 2)) or "nothing"


def drops(output: str) -> str:
    """What the Death Star did not get after the last request: :data:`DROPS` if all is well."""
    lines = list(told(output))
    if PUT_DROPPED not in lines:
        return f"no {PUT_DROPPED} among {len(lines)} lines"
    after = lines[len(lines) - lines[::-1].index(PUT_DROPPED) :]
    if after and after == [SYN_DENIED, SYN_DROPPED] * (len(after) // 2):
        return DROPS
    return f"{PUT_DROPPED}, then {', '.join(after) or 'nothing'}"
