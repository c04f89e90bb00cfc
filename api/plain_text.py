"""Characters that have no place in a name: they control what shows it, so that it is shown as another one."""

import re
import unicodedata

#: Characters that control a terminal or end a line, and halves of characters (surrogates), which can't be encoded.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

#: What a text of several lines may have of them.
_OF_LINES = str.maketrans("", "", "\n\r\t")

#: Characters that turn the direction of what follows, whatever script it is in. The marks that right-to-left names need
#: are none of them.
_OVERRIDES = re.compile("[\u202a-\u202e\u2066-\u2069]")


def has_controls(text: str, *, lines: bool = False) -> bool:
    """Whether a text has control characters. With `lines`, it may have tabs and ends of lines."""
    return _CONTROLS.search(text.translate(_OF_LINES) if lines else text) is not None


def overrides_direction(text: str) -> bool:
    """Whether a text has characters that override the direction of text."""
    return _OVERRIDES.search(text) is not None


def is_visible(text: str) -> bool:
    """Whether a text has a letter, a number or a sign, beside spaces, marks and what is not seen at all."""
    return any(unicodedata.category(one)[0] in "LNPS" for one in text)
