"""`serve`: load the runs, listen, and on SIGTERM or Ctrl-C answer what was accepted and end.

Not in commands/, whose package imports what training needs.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from clip_har.config import ServeConfig, validate
from clip_har.errors import ConfigError, MachineError
from clip_har.files import read_text
from clip_har.predict import AbstentionPolicy

KEY_VARIABLE = "CLIP_HAR_API_KEY"
SHORTEST_KEY = 8
SECONDS_TO_END = 5.0
"""What is left to answers after their time limit before the service ends without them."""


def serve(runs: Sequence[Path], config: ServeConfig, *, say: Callable[[str], None]) -> None:
    """Serve runs until SIGTERM or Ctrl-C.

    Args:
        runs: run folders; the first is the default.
        say: takes lines for the person who started it; the log goes to standard output.

    Raises:
        UserError: a setting, a run or a backbone cannot be used, or the port is taken.
    """
    _require_packages()
    validate(config)
    AbstentionPolicy.of(config)  # refused before anything slow
    key = read_key(config.api_key_file)
    with _bound(config.host, config.port) as listening:
        _serve(runs, config, key, listening, say)


def _serve(
    runs: Sequence[Path], config: ServeConfig, key: str | None, listening: socket.socket, say: Callable[[str], None]
) -> None:
    import uvicorn

    from clip_har.serving.app import create_app
    from clip_har.serving.build import build_service
    from clip_har.serving.decoders import prepare_decoders
    from clip_har.serving.logs import start_logging

    log = start_logging()
    prepare_decoders()
    service = build_service(runs, config, key)
    for model in service.models.values():
        for note in model.predictor.notes:
            say(note)
    settings = uvicorn.Config(
        create_app(service),
        log_config=None,
        access_log=False,
        lifespan="on",
        loop="asyncio",
        http="h11",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(config.timeout + SECONDS_TO_END),
    )
    url = _address(listening)
    say(f"Serving {', '.join(service.models)} on {url} (stop with Ctrl-C)")
    if key is None and not _is_loopback(listening):
        say(f"warning: {url} is reachable from other machines without an API key; pass --api-key-file FILE")
    log.info("started", extra={"facts": {"url": url, "models": list(service.models)}})
    with suppress(KeyboardInterrupt):  # uvicorn raises it again once everything is answered
        asyncio.run(uvicorn.Server(settings).serve(sockets=[listening]))
    log.info("stopped")


def read_key(file: Path | None) -> str | None:
    """The API key: from a file, otherwise from the environment, otherwise none.

    Raises:
        ConfigError: it cannot be read, or is too short.
    """
    if file is None:
        key, place = os.environ.get(KEY_VARIABLE), KEY_VARIABLE
        if key is None:
            return None
    else:
        place = f"--api-key-file {file}"
        try:
            key = read_text(file, largest=10_000)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{place} cannot be read", remedy="Pass a text file with the key.") from error
    key = key.strip()
    if len(key) < SHORTEST_KEY or not key.isascii() or " " in key or "\n" in key:
        raise ConfigError(
            f"{place} does not contain a key of at least {SHORTEST_KEY} characters",
            remedy="Create one: openssl rand -hex 24 > FILE",
        )
    return key


def _require_packages() -> None:
    missing = [name for name in ("fastapi", "uvicorn", "python_multipart", "prometheus_client") if not find_spec(name)]
    if missing:
        raise MachineError(
            f"clip-har serve requires {', '.join(missing)}", remedy='Install it: pip install "clip-har[serve]"'
        )


def _bound(host: str, port: int) -> socket.socket:
    """A socket on the address that does not listen yet: connections are refused until the runs are loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"Cannot listen on --host {host} --port {port}: {reason}",
            remedy="Pass another --port, or 0 for any free one.",
        ) from error
    return found


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(listening: socket.socket) -> bool:
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback
