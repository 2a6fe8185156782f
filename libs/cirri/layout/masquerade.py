"""Mirror of ``bpf/lib/masquerade.h``: where pods go under their own addresses."""

from cirri.layout.ipcache import IpcacheKey
from cirri.layout.scalar import U32_NUMBER
from cirri.layout.spec import NO_PREALLOC, MapSpec, MapType

HEADER = "lib/masquerade.h"

MASQUERADE_NOT = MapSpec(
    "cirri_masquerade_not", HEADER, MapType.LPM_TRIE, IpcacheKey, U32_NUMBER, 16384, flags=NO_PREALLOC
)
"""Every value is 1."""
