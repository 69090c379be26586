"""Joining a running Ray cluster, as a driver: the address is checked first, and the project's code is sent along."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablation_core.errors import EngineError, first_line

AUTO = "auto"  # instead of an address: the cluster that was started on this machine
_REACHED = 5.0  # seconds to wait for the cluster's address to answer


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """This process as a driver; the project's code is sent to the workers.

    Raises:
        EngineError: Ray is not installed, or there is no cluster that answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise EngineError("Ray is not installed; run: pip install -r requirements-cluster.txt") from error
    if ray.is_initialized():
        raise EngineError("This process is connected to Ray already; end that first (ray.shutdown()).")
    if address != AUTO:
        check_answers(address)
    # Numbers computed by numpy's library may depend on its threads too.
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    threads = {name: os.environ.get(name, os.environ.get(names[0], str(os.cpu_count()))) for name in names}
    package = {"py_modules": [str(Path(__file__).parents[1])], "excludes": ["**/__pycache__"], "env_vars": threads}
    try:
        ray.init(address=address, runtime_env=package, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # Ray raises nearly anything here; the user needs one sentence
        raise EngineError(
            f"The Ray cluster ({address}) cannot be joined: {first_line(error)} This machine must be part of it: 'ray start "
            f"--head' begins one here, 'ray start --address=HOST:PORT --num-cpus=0' joins one without computing."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def check_answers(address: str) -> None:
    """Whether anybody is there, before Ray is asked.

    Raises:
        EngineError: it is no address, or nobody answers.
    """
    host, colon, port = address.rpartition(":")
    if "://" in address or not (host and colon and port.isdecimal() and len(port) < 6 and int(port) < 65536):
        raise EngineError(
            f"{address!r} is no address of a Ray cluster: write HOST:PORT as 'ray start --head' prints it, or auto."
        )
    try:
        socket.create_connection((host, int(port)), _REACHED).close()
    except (OSError, UnicodeError) as error:  # the latter where the host is no possible name
        why = getattr(error, "strerror", None) or "no answer"
        raise EngineError(f"No Ray cluster answers at {address} ({why}); 'ray start --head' begins one.") from error
