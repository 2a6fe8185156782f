"""A build backend that needs nothing: what pip calls when a test's clone is installed.

Each call adds a line to the file ``builds``; while there is a file ``hold``, it does not return.
"""

import time
import zipfile
from pathlib import Path
from typing import Any

INFO = "cirri-0.1.0.dist-info"
FILES = {
    "cirri_path.pth": ".\n",
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: cirri\nVersion: 0.1.0\nProvides-Extra: dev\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/entry_points.txt": "[console_scripts]\ncirri = os:getpid\n",
}


def build_editable(folder: str, settings: Any = None, metadata: Any = None) -> str:
    """Write the wheel into *folder*; its file name."""
    del settings, metadata
    with Path("builds").open("a") as builds:
        builds.write("built\n")
    while Path("hold").exists():
        time.sleep(0.02)
    name = "cirri-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(Path(folder) / name, "w") as wheel:
        for path, text in FILES.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{INFO}/RECORD", "".join(f"{path},,\n" for path in [*FILES, f"{INFO}/RECORD"]))
    return name


build_wheel = build_editable
