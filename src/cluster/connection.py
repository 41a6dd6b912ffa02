"""Workers on this machine, or those of a scheduler that runs already."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from src.common.errors import InputError, counted, one_line

REQUIREMENTS = "pip install -r requirements-cluster.txt"
HOST = "127.0.0.1"
DASHBOARD = f"{HOST}:8787"
COUNT_GPUS = "import torch; print(torch.cuda.device_count())"  # in a process of its own: the command needs no torch
# Ctrl-C of a terminal reaches all processes: workers leave it to the command, which ends them.
IGNORE_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
SECONDS_TO_ANSWER = 30  # of a scheduler, also for coming back


@dataclass(frozen=True)
class LocalWorkers:
    """How many workers are started, the GPUs of each, and whether Dask's dashboard is."""

    count: int
    gpus: int
    dashboard: bool


def require_dask(dashboard: bool) -> None:
    """Refuse to go on where Dask is not installed, or what its dashboard needs.

    Raises:
        InputError: it is not.
    """
    for module in ("distributed", "cryptography"):
        if find_spec(module) is None:
            raise InputError(f"src.cohort needs {module}: {REQUIREMENTS}")
    if dashboard and find_spec("bokeh") is None:
        raise InputError("--dashboard needs bokeh: pip install bokeh")


def require_gpus(local: LocalWorkers) -> None:
    """Refuse more GPUs than this machine has, or than ``CUDA_VISIBLE_DEVICES`` lets torch see.

    Raises:
        InputError: naming the flag.
    """
    needed = local.count * local.gpus
    if not needed:
        return
    counting = subprocess.run([sys.executable, "-c", COUNT_GPUS], capture_output=True, text=True)
    if counting.returncode:
        raise InputError(f"--gpus-per-task {local.gpus}: torch cannot count GPUs ({one_line(counting.stderr[-160:])})")
    if needed > int(counting.stdout):
        raise InputError(
            f"--gpus-per-task {local.gpus}: {counted(local.count, 'worker')} would need {counted(needed, 'GPU')}, and"
            f" torch sees {int(counting.stdout)} on this machine"
        )


@contextmanager
def connect(scheduler: str, local: LocalWorkers) -> Iterator[Any]:
    """A client of the scheduler at an address, or for ``local`` of one that is started here with its workers.

    Raises:
        InputError: nothing answers at the address.
    """
    from distributed import Client

    if scheduler != "local":
        try:
            client = Client(scheduler, timeout=SECONDS_TO_ANSWER)
        except (OSError, ValueError, TypeError) as error:  # TypeError: TLS without certificates
            raise InputError(f"--scheduler {scheduler}: no scheduler answers ({error})") from error
        with client:
            yield client
        return
    with _cluster(local) as cluster, Client(cluster, security=cluster.security) as client:
        yield client


def _cluster(local: LocalWorkers) -> Any:
    """A scheduler and workers that only processes of this run can talk to: others on this machine have no key."""
    import logging

    from distributed import Nanny, Scheduler, Security, SpecCluster

    security = Security.temporary()
    usual = {"host": HOST, "protocol": "tls://", "security": security, "silence_logs": logging.ERROR}
    own = {
        "nthreads": 1, "memory_limit": 0, "preload": IGNORE_CTRL_C,
        "dashboard": False, "dashboard_address": f"{HOST}:0",
    }  # fmt: skip
    board = {"dashboard": local.dashboard, "dashboard_address": DASHBOARD if local.dashboard else f"{HOST}:0"}
    workers = {
        number: {"cls": Nanny, "options": {**usual, **own, **_gpus(number, local.gpus)}}
        for number in range(local.count)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": HOST, "port": 0, "protocol": "tls://", "security": security, **board},
    }
    return SpecCluster(workers, scheduler, security=security, silence_logs=logging.ERROR)


def _gpus(number: int, each: int) -> dict[str, Any]:
    """The options of a worker by which its processes see their own GPUs alone."""
    if not each:
        return {}
    own = range(number * each, (number + 1) * each)
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = [visible[index] if visible else str(index) for index in own]
    return {"resources": {"GPU": each}, "env": {"CUDA_VISIBLE_DEVICES": ",".join(names)}}
