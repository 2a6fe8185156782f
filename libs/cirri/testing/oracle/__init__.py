"""A second reading of the policy reference, to compare the engine and the kernel with.

Written from the reference alone, and shares no code with ``cirri.engine`` or ``cirri.labels``: for each
packet it asks every rule of every manifest whether it allows or denies it.  There are no identities
here, no tables and no order; addresses are compared with prefixes, labels with selectors.
"""

from cirri.testing.oracle.verdict import Answer, Oracle
from cirri.testing.oracle.world import Node, Pod, World

__all__ = ["Answer", "Node", "Oracle", "Pod", "World"]
