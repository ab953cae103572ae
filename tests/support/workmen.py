"""Workers that end in a certain way, as processes of their own."""

import json
import os
import signal
from multiprocessing.connection import Connection
from typing import Any


def killed(work: Any, supervisor: Connection) -> None:
    """By a signal, at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def without_a_log(work: Any, supervisor: Connection) -> None:
    """As one whose log does not answer."""
    os._exit(os.EX_TEMPFAIL)


def misconfigured(work: Any, supervisor: Connection) -> None:
    """As one whose settings can't be."""
    os._exit(os.EX_CONFIG)


def served(work: Any, supervisor: Connection) -> None:
    """Not at all: it lacks nothing, and says so once."""
    asked = json.loads(supervisor.recv_bytes())
    supervisor.send_bytes(json.dumps({"type": "Answer", "asked": asked, "text": ""}).encode())
    supervisor.recv_bytes()
