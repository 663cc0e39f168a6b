"""A Ray cluster for one command: this machine's own, or one that runs already. What is done on it is in pool.py.

Ray is quiet here: what a user should know of its workers comes through `Progress`.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from clip_har.config import RayConfig
from clip_har.errors import ConfigError, MachineError, first_line

LOCAL = "local"
_CONNECTING_SECONDS = 5.0
_STORE_BYTES = 512 << 20
"""Shared memory for what workers hand over on this machine; the work in flight is bounded, see pool.py."""
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a worker without a GPU sees none; saying so avoids a notice
}


def load_ray() -> Any:
    """Ray.

    Raises:
        MachineError: it is not installed.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MachineError(
            "--engine ray requires the package ray, which is not installed", remedy="Run: pip install 'clip-har[ray]'"
        ) from error


def check_engine(config: RayConfig) -> None:
    """What can be refused before anything slow.

    Raises:
        ConfigError: flags contradict each other.
        MachineError: Ray is not installed.
    """
    if config.engine == "ray":
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                "--engine ray cannot be combined with torchrun: Ray starts the processes",
                remedy="Run clip-har without torchrun, or remove --engine ray.",
            )
        load_ray()
        return
    for flag, value, default in (
        ("--ray-address", config.ray_address, LOCAL),
        ("--ray-workers", config.ray_workers, -1),
    ):
        if value != default:
            raise ConfigError(f"{flag} requires --engine ray", remedy=f"Pass --engine ray, or remove {flag}.")


def uses_gpu(device: str, ray: Any) -> bool:
    """Whether workers take a GPU of the cluster, by --device.

    Raises:
        ConfigError: it says which GPU.
    """
    if device.startswith("cuda:"):
        raise ConfigError(
            f"--device {device} cannot be combined with --engine ray, which assigns the GPUs",
            remedy="Pass --device cuda or auto.",
        )
    return device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) >= 1)


@contextmanager
def connected(config: RayConfig) -> Iterator[Any]:
    """Ray, connected to the cluster that the flags mean. A connection that this process has already is used and kept.

    Raises:
        ConfigError, MachineError: there is no such cluster.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield ray
        return
    with _quiet(ray):
        _connect(ray, config)
        try:
            yield ray
        finally:
            ray.shutdown()


def _connect(ray: Any, config: RayConfig) -> None:
    address = config.ray_address
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        cores = max(os.cpu_count() or 1, config.ray_workers)
        options |= {"num_cpus": cores, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    else:
        _require_listener(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
    try:
        ray.init(address=address, **options)
    except (Exception, SystemExit) as error:  # a bare Exception if the machine is too slow; Ray exits if it gives up
        what = "Ray cannot be started on this machine" if address == LOCAL else f"No Ray cluster at {address}"
        reason = f": {first_line(error)}" if address == LOCAL else ""
        raise MachineError(
            what + reason,
            remedy="Start one with ray start --head, or pass its HOST:PORT with --ray-address."
            if address != LOCAL
            else "Look into /tmp/ray/session_latest/logs, or remove --engine ray.",
        ) from error


def _require_listener(address: str) -> None:
    """Ray itself tries for minutes to connect.

    Raises:
        ConfigError: it is no address.
        MachineError: nothing listens there.
    """
    if address == "auto":
        return
    match = re.fullmatch(r"(?:ray://)?(\[[^\]]+\]|[^:/\[\]]+):(\d{1,5})", address)
    if match is None:
        raise ConfigError(
            f"--ray-address {address} is not local, auto or HOST:PORT", remedy="Example: --ray-address 10.0.0.5:6379"
        )
    try:
        with socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=_CONNECTING_SECONDS):
            return
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise MachineError(
            f"No Ray cluster at {address}: {reason}",
            remedy="Start one with ray start --head, or correct --ray-address.",
        ) from error


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Keep Ray from printing pages about a worker that died to standard output; pool.py says it in a line."""
    worker = getattr(getattr(ray, "_private", None), "worker", None)
    printing = getattr(worker, "print_to_stdstream", None)
    if printing is None:  # another version of Ray, which then prints more
        yield
        return
    worker.print_to_stdstream = lambda *_arguments, **_options: None  # type: ignore[union-attr]
    try:
        yield
    finally:
        with suppress(AttributeError):
            worker.print_to_stdstream = printing  # type: ignore[union-attr]
