"""What a user can get wrong, as exceptions that each say what, where and what to do about it.

Anything else that escapes is our own mistake and ends in a traceback.
"""

from __future__ import annotations

from clip_har.shown_text import shown


class UserError(Exception):
    """Something the user can fix. The command line prints it as one line and exits with 2.

    Args:
        what: what is wrong, and where (a path, a flag, a key).
        remedy: what to do about it, as an imperative sentence.
    """

    def __init__(self, what: str, *, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (type(self), self.what, self.remedy)  # exceptions are otherwise sent without keyword arguments

    def __str__(self) -> str:
        return shown(" ".join(f"{self.what.rstrip('.')}. {self.remedy}".split()))


def _again(kind: type[UserError], what: str, remedy: str) -> UserError:
    return kind(what, remedy=remedy)


class ConfigError(UserError):
    """A flag or a config file's key that cannot be used."""


class DataError(UserError):
    """A dataset that cannot be used as it is."""


class ModelError(UserError):
    """A backbone that cannot be found, loaded or used."""


class RunError(UserError):
    """A run folder that is missing, damaged, or does not fit what is asked of it."""


class TrainingError(UserError):
    """A training that had to stop, such as one whose loss is no longer finite."""


class MachineError(UserError):
    """Something that the machine refuses, such as memory, disk space, a permission or a limit."""


class UnreadableImageError(Exception):
    """One image that cannot be read. Collected and reported, not fatal on its own.

    Args:
        reason: why, in a few words that fit on a line behind the file's path.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def first_line(error: BaseException, *, longest: int = 160) -> str:
    """The first line of an error's message, shortened; its type where there is none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= longest else f"{lines[0][: longest - 3]}..."
