r"""Text from outside, such as the names of files and classes, as it may be shown: what would act is written out.

A terminal obeys escape sequences and a page reorders text around bidirectional controls. Files for programs (JSON, CSV)
keep the true names.
"""

from __future__ import annotations

import re

_ACTING = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0 and C1 controls and DEL: terminals obey them
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0"  # not seen
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls: they reorder what stands around them
    "\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"  # no width, or the end of a line
    "\ud800-\udfff"  # lone surrogates: no UTF-8
    "]"
    # The joiners of emoji and of Persian stand between characters beyond ASCII; elsewhere they only hide.
    "|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def shown(text: str) -> str:
    r"""The text on one line, with \x1b, \u202e or \n for each character that would act rather than be seen.

    Letters of every script, accents and emoji stay as they are.
    """
    return _ACTING.sub(_written_out, text)


def shown_lines(text: str) -> str:
    """The same for a text of our own of several lines, which keep their ends and tabs."""
    return _ACTING.sub(lambda match: match[0] if match[0] in "\n\t" else _written_out(match), text)


def shown_json(text: str) -> str:
    r"""JSON with \u001b for each character that would act: it means the same as before.

    Args:
        text: JSON, in which these characters occur in strings alone.
    """
    return _ACTING.sub(lambda match: match[0] if match[0] in "\n\t" else f"\\u{ord(match[0]):04x}", text)


def _written_out(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
