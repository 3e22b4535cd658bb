"""vLLM's processes end with the process that started them, whatever ends it.

Killed, it cannot end them, and vLLM's own would live on with the memory of their GPUs.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import MutableMapping

OWNER = "PLATO_VLLM_OWNER"
"""Environment variable with the id of the process that started vLLM."""
INTERVAL_S = 1.0


def own(environment: MutableMapping[str, str]) -> None:
    """Make this process the owner of children with this environment."""
    environment[OWNER] = str(os.getpid())


def end_with_owner() -> None:
    """Kill this process, and its parent if that is not the owner, once the owner is gone.

    For workers: their parent is vLLM's scheduler, or they are in its process.
    """
    owner, parent = int(os.environ[OWNER]), os.getppid()
    processes = [os.getpid()] if parent == owner else [parent, os.getpid()]

    def watch() -> None:
        while _exists(owner):
            time.sleep(INTERVAL_S)
        for process in processes:
            if _exists(process):
                os.kill(process, signal.SIGKILL)

    threading.Thread(target=watch, name="plato-vllm-owner", daemon=True).start()


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
