"""What can go wrong between us and the kernel's network configuration.

CirriError
├── NetlinkRefused   the kernel answered a request with an error
└── NamespaceGone    a network namespace path leads nowhere, or to something else
"""

import os

from cirri.errors import CirriError


class NetlinkRefused(CirriError):
    """The kernel refused one request of a batch; *errno* says why."""

    def __init__(self, what: str, errno: int) -> None:
        self.what, self.errno = what, errno
        super().__init__(f"the kernel refused to {what}: {os.strerror(errno)}")


class NamespaceGone(CirriError):
    """A path that should name a network namespace does not."""

    def __init__(self, path: str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path} is not a network namespace: {why}")
