"""Mirror of ``bpf/lib/runtime.h``: what the datapath service may change while programs run."""

from typing import ClassVar

from cirri.layout.mirror import U32, Mirror
from cirri.layout.scalar import U32_NUMBER
from cirri.layout.spec import MapSpec, MapType

HEADER = "lib/runtime.h"


class RuntimeConfig(Mirror, frozen=True, kw_only=True):
    """``struct runtime``, at index 0."""

    c_name: ClassVar[str] = "runtime"
    header: ClassVar[str] = HEADER

    epoch: U32 = 0
    """Raised after any change of policy, endpoint or ipcache identity."""
    uplink_ifindex: U32 = 0


RUNTIME = MapSpec("cirri_runtime", HEADER, MapType.ARRAY, U32_NUMBER, RuntimeConfig, 1)
