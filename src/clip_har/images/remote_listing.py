"""The objects that a URL stands for: itself, those of a prefix, or those that match a pattern, sorted.

How an object is fetched is in remote.py.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from typing import Any

from clip_har.errors import ConfigError, UserError
from clip_har.images.remote import is_url, location, patiently, reason_of, system_of

_WEB = ("http://", "https://")
_CREDENTIALS = {"s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "hf": "Set HF_TOKEN"}


def require_remote(url: str) -> list[str] | None:
    """What a pattern matches, sorted; None for any other URL, which is there. Of the web nothing is asked.

    Raises:
        UserError: nothing is there or matches, or the service refuses.
    """
    location(url)
    if url.lower().startswith(_WEB):
        return None
    system, path = system_of(url)
    scheme = url.partition("://")[0]
    try:
        if not glob.has_magic(path) or patiently(lambda: system.exists(path)):
            patiently(lambda: system.info(path))
            return None
        found = sorted(patiently(lambda: system.glob(path)))
    except Exception as error:  # fsspec's file systems raise what their libraries raise
        raise _refusal(url, error) from error
    if not found:
        raise ConfigError(f"No object matches {url}", remedy="Correct the pattern, or pass a prefix.")
    return [f"{scheme}://{_bare(name)}" for name in found]


def below(url: str) -> Iterator[str]:
    """The object itself, or the objects of a prefix and of all below it, by name; hidden ones are passed over.

    No more names are held at a time than are in one prefix, its parents included.

    Raises:
        UserError: a prefix cannot be listed.
    """
    if not is_url(url) or url.lower().startswith(_WEB):
        yield url
        return
    system, path = system_of(url)
    scheme = url.partition("://")[0]
    try:
        if not url.endswith("/") and not patiently(lambda: system.isdir(path)):
            yield url
            return
        open_prefixes = [_listed(system, path)]
        while open_prefixes:
            if not open_prefixes[-1]:
                open_prefixes.pop()
                continue
            name, is_prefix = open_prefixes[-1].pop()
            if is_prefix:
                open_prefixes.append(_listed(system, name))
            else:
                yield f"{scheme}://{_bare(name)}"
    except Exception as error:
        raise _refusal(url, error) from error


def _listed(system: Any, path: str) -> list[tuple[str, bool]]:
    """What a prefix contains, the last first, and whether it is a prefix itself."""
    entries = patiently(lambda: system.ls(path, detail=True))
    found = [(str(entry["name"]).rstrip("/"), entry["type"] == "directory") for entry in entries]
    own = path.rstrip("/")
    return sorted(
        ((name, is_prefix) for name, is_prefix in found if name != own and not _is_hidden(name)), reverse=True
    )


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


def _bare(name: str) -> str:
    """What follows the scheme; fsspec gives some names with a leading slash and some with the scheme."""
    return name.partition("://")[2] or name.lstrip("/")


def _refusal(url: str, error: Exception) -> Exception:
    if isinstance(error, UserError):
        return error
    reason, scheme = reason_of(error), url.partition("://")[0].lower()
    what = f"{url} does not exist" if reason == "no such object" else f"{url} cannot be read: {reason}"
    if reason in ("no credentials", "permission denied"):
        return ConfigError(what, remedy=f"{_CREDENTIALS.get(scheme, 'Set the credentials of the service')}.")
    remedy = "Correct the URL." if reason == "no such object" else "Try again later, or correct the URL."
    return ConfigError(what, remedy=remedy)
