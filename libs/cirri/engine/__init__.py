"""The one policy engine: what every rule means, for the kernel, for explanations and for tests.

Pure.  ``parse`` reads objects into rule sets, ``select`` says whom selectors select, ``compile`` keeps
selector sets and each identity's rules, ``entries`` expands them for the kernel, ``verdict`` is
the kernel's lookup.
"""

from cirri.engine.compile import Compiler, Delta
from cirri.engine.config import EngineConfig, InvalidConfig
from cirri.engine.context import CONTEXT_KINDS
from cirri.engine.entries import EGRESS, INGRESS, Change, Entries, EntryKey, EntryValue, entries, plan
from cirri.engine.parse import KINDS, faults, read, rules, unsupported
from cirri.engine.rule import Finding, InvalidPolicy, ObjectRule, PolicyConflict, Ports, Section, Term
from cirri.engine.select import LabelSet, Requirement, Selector
from cirri.engine.verdict import Verdict, verdict

__all__ = [
    "CONTEXT_KINDS",
    "EGRESS",
    "INGRESS",
    "KINDS",
    "Change",
    "Compiler",
    "Delta",
    "EngineConfig",
    "Entries",
    "EntryKey",
    "EntryValue",
    "Finding",
    "InvalidConfig",
    "InvalidPolicy",
    "LabelSet",
    "ObjectRule",
    "PolicyConflict",
    "Ports",
    "Requirement",
    "Section",
    "Selector",
    "Term",
    "Verdict",
    "entries",
    "faults",
    "plan",
    "read",
    "rules",
    "unsupported",
    "verdict",
]
