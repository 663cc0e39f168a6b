"""What went wrong with a pretrained model, as one line with a remedy."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Iterable, Sequence

from clip_har.errors import ModelError, first_line


def nearest_models(name: str, known: Sequence[str], historic_names: Iterable[str], short_names: Iterable[str]) -> str:
    """What an unknown name may mean, and what other names there are."""
    historic = tuple(historic_names)
    own = {known_name.lower(): known_name for known_name in (*historic, *short_names)}
    near = [own[found] for found in difflib.get_close_matches(name.lower(), own, n=1, cutoff=0.7)]
    near += [found for found in difflib.get_close_matches(name.replace("/", "-"), known, n=3, cutoff=0.5) if not near]
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    listed = ", ".join(historic)
    return (
        f"{hint}Use {listed}, a short name that clip-har models lists, an open_clip NAME:PRETRAINED, hf-hub:REPO, "
        "local-dir:FOLDER, a file, or demo."
    )


def explained(name: str, architecture: str, error: Exception, *, local_only: bool) -> ModelError:
    """An exception of open_clip or the hub, as one line with a remedy."""
    if "Error(s) in loading state_dict" in str(error):
        return ModelError(
            f"The weights of {name} do not fit its architecture: {_second_line(error)}",
            remedy="Pass the architecture that the weights were saved from, or check that the file is complete.",
        )
    reason = re.sub(r"(local-dir:)?\S*clip-har-model-\w+", "its folder", _first_sentence(error))
    words = ("download", "hub", "huggingface")
    wants_network = architecture.startswith("hf-hub:") or any(word in reason.lower() for word in words)
    if architecture.startswith("local-dir:") or not wants_network:
        return ModelError(f"The model {name} cannot be loaded: {reason}", remedy="Check that its files are complete.")
    if local_only:
        return ModelError(
            f"The weights of {name} are not on this machine",
            remedy=f"To download them, pass --model {name} without --offline.",
        )
    return ModelError(
        f"The weights of {name} could not be downloaded ({reason})",
        remedy="Without a network: download the weights elsewhere and pass --model "
        f"{'NAME' if ':' in architecture else architecture}:FILE or local-dir:FOLDER, or use --model demo, which "
        "needs no download.",
    )


def _first_sentence(error: Exception) -> str:
    reason = first_line(error, longest=10_000).rpartition("Last error: ")[2]
    return textwrap.shorten(reason.split(". ")[0], 160, placeholder=" ...").rstrip(".")


def _second_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()]
    return textwrap.shorten(lines[min(1, len(lines) - 1)], 160, placeholder=" ...").rstrip(".")
