"""Tracing policies: what they say, which of it system calls can serve, and the C that serves it.  Pure.

The language is that of Tetragon's TracingPolicy.  Here hooks are system calls, at their entry: kernels
without kprobes and LSM programs have these.  :func:`policy_of` says what cannot be served, by which field,
and what can.
"""

from cirri.tracing.generate import generate, tells_results
from cirri.tracing.policy import (
    Argument,
    Filter,
    Hook,
    Policy,
    Selector,
    Unserved,
    hook_number,
    policy_of,
    selects,
)

__all__ = [
    "Argument",
    "Filter",
    "Hook",
    "Policy",
    "Selector",
    "Unserved",
    "generate",
    "hook_number",
    "policy_of",
    "selects",
    "tells_results",
]
