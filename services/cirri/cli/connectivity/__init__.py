"""``cirri connectivity test``: whether the cluster carries, and refuses, what it should.

Tests are data (``scenarios.yaml``, ``policies/``, ``workloads.yaml``).  Apart from what touches a cluster
all of it is pure: :mod:`catalogue` says which tests there are, :mod:`manifests` what they apply,
:mod:`actions` who asks whom, :mod:`verdict` whether the answer was right, :mod:`report` how that is told.
:mod:`cluster` is what a run needs of a cluster, :mod:`labcluster` a lab as one; :mod:`runner` runs.
"""
