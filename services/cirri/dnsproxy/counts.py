"""What an instance counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Numbers since the start; the names are those of the metrics ``cirri_dnsproxy_NAME_total``."""

    queries: int = 0
    """Questions of pods, over UDP and TCP."""
    answers: int = 0
    """Answers of servers that pods were given."""
    refused: int = 0
    """Questions that no rule lets pass."""
    malformed: int = 0
    """Questions and answers that cannot be read."""
    strangers: int = 0
    """Packets that no pod of this node can have sent."""
    spoofed: int = 0
    """Answers to no question, or about another one."""
    retries: int = 0
    """Questions sent again because no answer came."""
    timeouts: int = 0
    """Questions that no server answered."""
    overdue: int = 0
    """Answers given before the kernel knew their addresses, because that took too long."""
    unopened: int = 0
    """Answers given while the kernel has no map of names."""
    crowded: int = 0
    """Questions not taken because their pod, or the proxy, waits for too many answers already."""
    unsent: int = 0
    """Messages that could not be sent."""
    replayed: int = 0
    """Questions taken over from the instance that died."""
