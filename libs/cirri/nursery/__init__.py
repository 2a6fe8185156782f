"""Services that start in milliseconds: forked from a process that has imported what they need.

::

    nursery = Nursery("lab x", ["cirri.datapath", "cirri.policy"])
    nursery.open()                       # a process: python -m cirri.nursery ...
    nursery.wait_ready(10.0)
    pid = nursery.start(["python", "-m", "cirri.policy"], env, Place(netns="/run/netns/a"), (0, 1, 2))
    nursery.words()                      # ... [Word("ended", pid, 0)]

Whoever uses one is a service manager: it starts a program the ordinary way (:func:`settle`, then
exec) whenever the nursery is not ready, says no, or is gone.  The nursery imports, and forks; it has no
thread, no event loop and no socket but the one to its user.  It never forks old code: when a file
that it has imported has changed, it refuses and begins anew.  When its user is gone it ends; its
children go on, and belong to whoever adopts orphans.
"""

from cirri.nursery.client import Nursery, nursable
from cirri.nursery.place import Place, Word, settle

__all__ = ["Nursery", "Place", "Word", "nursable", "settle"]
