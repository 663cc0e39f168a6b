"""`clip-har embed`: flags in, counts out, exit codes. No logic; that is in embedding/command.py."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from clip_har.cli.shared import EXIT_DONE, EXIT_FINDINGS, EXIT_USER_INPUT, ConfigFile, shown_progress
from clip_har.config import STANDARD_INPUT, EmbedConfig


def embed(*images: str, config: Annotated[EmbedConfig, Parameter(name="*")], config_file: ConfigFile = None) -> int:
    """Write the embeddings of any number of images to Parquet files, on one machine or on many.

    Files that exist are not written again, so that the same command continues after an interruption. With --part
    several commands share the work; they need the same --out on a shared disk and nothing else.

    Example: clip-har embed photos/ --model ViT-B/32 --out embeddings

    Args:
        images: Image files, folders that are searched for images, quoted patterns such as 'photos/**/*.jpg', URLs such
            as s3://bucket/photos/, WebDataset tar shards, and - for a list of paths and URLs on standard input, one a
            line.
    """
    from clip_har.console import Output
    from clip_har.embedding import command
    from clip_har.images.remote import location

    del config_file
    given = tuple(map(location, images))
    names = sys.stdin.buffer if STANDARD_INPUT in given else None
    if config.check:
        found = command.check(given, config, standard_input=names, progress=shown_progress())
        Output().checked_embeddings(found)
        return EXIT_DONE if found.complete == found.shards else EXIT_FINDINGS
    counts = command.embed(given, config, standard_input=names, progress=shown_progress())
    Output().embedded(counts, config.out)
    return EXIT_DONE if counts.embedded or not counts.unreadable else EXIT_USER_INPUT
