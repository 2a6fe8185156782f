"""Hold the objects that users wrote, and publish them for everybody else.

Reads   manifests below STATE_DIR/manifests, which it alone writes; podcidrs, to tell endpoints that no
        node has (nothing waits for that); with Kubernetes the API server, and conditions, endpoints,
        identities and nodes to tell it about
Writes  resources
Serves  cirri.kubernetes.apply, .delete: all or nothing, checked before stored
        cirri.kubernetes.confirm, .rollback: for objects that are undone unless a person confirms them
Needs   no privileges, one per cluster

In clusters without Kubernetes the manifests on disk are the truth, and the bucket is rebuilt from them when
its store was lost; with Kubernetes it follows the API server (``bridge``), and nothing is on disk.
"""

from cirri.model import CONDITIONS, ENDPOINTS, IDENTITIES, NODES, POD_CIDRS, RESOURCES
from cirri.runtime import Service

SERVICE = Service(
    name="kubernetes",
    summary="Holds the objects that users applied, checked, and publishes them.",
    scope="cluster",
    reads=(POD_CIDRS, CONDITIONS, ENDPOINTS, IDENTITIES, NODES),
    writes=(RESOURCES,),
    serves=("apply", "delete", "confirm", "rollback"),
)
