"""`tidecast` as a user whom permissions hold back, also where the tests run as root."""

import ctypes
import os
import subprocess
import sys

NO_HOME = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")}
DROP_BOUNDING, OVERRIDE, READ_SEARCH = 24, 1, 2
"""Of prctl(2) and capabilities(7): what lets root write and read anything."""


def without_rights() -> None:
    """Root no longer writes and reads what permissions do not let it; others don't anyway."""
    for capability in (OVERRIDE, READ_SEARCH):
        ctypes.CDLL(None).prctl(DROP_BOUNDING, capability)


def run_without_rights(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """`tidecast ARGUMENTS` without a home folder, and without the rights of root."""
    command = [sys.executable, "-P", "-m", "tidecast", *map(str, arguments)]
    return subprocess.run(command, env=NO_HOME, preexec_fn=without_rights, capture_output=True, text=True, check=False)
