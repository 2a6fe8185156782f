"""From wanted states to a target that equals the newest of them.

A service yields whole states; :func:`plan` says what to write, :func:`reconcile` writes it, with
conflation, retries and a periodic re-read, in this one place.
"""

from cirri.reconcile.loop import Status, Target, reconcile
from cirri.reconcile.plan import Plan, applied, plan

__all__ = ["Plan", "Status", "Target", "applied", "plan", "reconcile"]
