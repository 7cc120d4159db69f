"""Readable text from word tokens: no blank before a comma, none inside brackets, none around ``@-@``.

The rules follow Unicode categories, so they hold for any script. Each word has a code that says how it joins its
neighbors, and `place_word` reads the codes from left to right without looking ahead, so that text can be shown while it
is generated. TorchScript compiles `place_word`: an exported model spaces words exactly as the package does. For that
reason, the function uses plain integers and no global constants.
"""

import unicodedata
from collections.abc import Iterable, Sequence

JOINS_BEFORE = 1
"""No blank before the word."""
JOINS_AFTER = 2
"""No blank after the word."""
TOGGLE = 4
"""A straight quotation mark, which opens and closes in turn."""
LOW_DOUBLE, HIGH_DOUBLE = 8, 16
"""„ opens; “ closes what „ opened and opens otherwise."""
LOW_SINGLE, HIGH_SINGLE = 32, 64
"""The same for ‚ and ‘."""
LEFT_ANGLE, RIGHT_ANGLE = 128, 256
"""« and »: the first of a pair opens, whichever it is."""
REGIONAL = 512
"""A regional indicator; two of them are a flag."""
CONTINUOUS = 1024
"""Text of a script without blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese)."""

LINE_START = 1
"""State of `place_word` at the start of a line."""

_SPECIAL = {
    '"': TOGGLE,
    "„": LOW_DOUBLE,
    "“": HIGH_DOUBLE,
    "‚": LOW_SINGLE,
    "‘": HIGH_SINGLE,
    "«": LEFT_ANGLE,
    "‹": LEFT_ANGLE,
    "»": RIGHT_ANGLE,
    "›": RIGHT_ANGLE,
    "``": JOINS_AFTER,
    "''": JOINS_BEFORE,
    "—": JOINS_BEFORE | JOINS_AFTER,
    "/": JOINS_BEFORE | JOINS_AFTER,
}
_MARKED_JOINTS = {"@-@": "-", "@,@": ",", "@.@": "."}
_CONTRACTIONS = ("n't", "'s", "'re", "'ve", "'ll", "'d", "'m", "'t")
_OPENING = frozenset("#¿¡")
_FREE = frozenset("&*@\\§¶†‡·•※'\"")
"""Punctuation of the category `Po` that closes nothing."""
_JOINERS = frozenset("\u00ad\u200c\u200d\u2060")
_CONTINUOUS_SCRIPTS = ("CJK ", "HIRAGANA", "KATAKANA", "THAI ", "LAO ", "KHMER", "MYANMAR")


def word_text(word: str) -> str:
    """Return the written form of a word token: the mark itself for ``@-@``, ``@,@`` and ``@.@``."""
    return _MARKED_JOINTS.get(word, word)


def spacing_code(word: str) -> int:
    """Return the spacing code of a word token, for `place_word`.

    Args:
        word: non-empty token.

    Returns:
        A sum of the constants above; 0 for a word with a blank on either side.
    """
    if word in _SPECIAL:
        return _SPECIAL[word]
    if word in _MARKED_JOINTS or (len(word) > 1 and word.strip("-") == ""):
        return JOINS_BEFORE | JOINS_AFTER
    first, last = word[0], word[-1]
    if len(word) == 1 and "\U0001f1e6" <= first <= "\U0001f1ff":
        return REGIONAL
    code = JOINS_BEFORE if word in _CONTRACTIONS or _closes(first) else 0
    code |= JOINS_AFTER if _opens(last) else 0
    if _is_wide_mark(first):
        code |= JOINS_BEFORE
    if _is_wide_mark(last):
        code |= JOINS_AFTER
    if any(unicodedata.name(sign, "").startswith(_CONTINUOUS_SCRIPTS) for sign in (first, last)):
        code |= CONTINUOUS
    return code


def _closes(sign: str) -> bool:
    category = unicodedata.category(sign)
    if category == "Po":
        return sign not in _FREE and sign not in _OPENING
    # Combining marks, variation selectors, joiners and skin tones belong to the preceding character.
    return category in ("Pe", "Pf", "Mn", "Mc", "Me", "Cf") or "\U0001f3fb" <= sign <= "\U0001f3ff"


def _opens(sign: str) -> bool:
    category = unicodedata.category(sign)
    return category in ("Ps", "Pi") or sign in _OPENING or sign in _JOINERS or (category == "Sc" and sign != "€")


def _is_wide_mark(sign: str) -> bool:
    """Return whether a character is full-width punctuation, such as ``。`` and ``（``."""
    return unicodedata.category(sign)[0] == "P" and unicodedata.east_asian_width(sign) in ("W", "F")


def place_word(code: int, state: int) -> tuple[bool, int]:
    """Decide whether a blank goes before the next word of a line.

    Args:
        code: the word's `spacing_code`.
        state: state after the word before; `LINE_START` at the start of a line.

    Returns:
        Whether a blank comes first, and the state after the word. Bits of the state: 1 no blank follows, 4 a straight
        quotation mark is open, 8, 32, 128 and 256 the mark of that code is open, 512 half a flag, 1024 the text before
        is of a script without blanks.
    """
    before = (code & 1) != 0
    after = (code & 2) != 0
    kept = state & (4 | 8 | 32 | 128 | 256)
    opens, closes = 0, 0
    if (code & 4) != 0:
        opens, closes = 4, 4
    elif (code & 8) != 0 or (code & 32) != 0:
        opens = code & (8 | 32)
    elif (code & 16) != 0:
        closes = 8
    elif (code & 64) != 0:
        closes = 32
    elif (code & 128) != 0:
        opens, closes = 128, 256
    elif (code & 256) != 0:
        opens, closes = 256, 128
    mark = (code & (4 | 8 | 16 | 32 | 64 | 128 | 256)) != 0
    if mark and (kept & closes) != 0:
        before = True
        kept = kept ^ closes
    elif mark:
        after = True
        kept = kept | opens
    flag = (code & 512) != 0 and (state & 512) != 0
    if (code & 512) != 0 and not flag:
        kept = kept | 512
    continuous = (state & 1024) != 0
    # Marks neither begin nor end a run of continuous script.
    joined = continuous and ((code & 1024) != 0 or (mark and after))
    if (code & 1024) != 0 or (continuous and (before or after)):
        kept = kept | 1024
    blank = (state & 1) == 0 and not before and not flag and not joined
    return blank, kept | 1 if after else kept


def write_words(texts: Sequence[str], codes: Sequence[int], ids: Iterable[int]) -> str:
    """Return one line of word tokens as readable text.

    Args:
        texts: `word_text` of each token of the vocabulary.
        codes: `spacing_code` of each token of the vocabulary.
        ids: token ids of the line.
    """
    pieces: list[str] = []
    state = LINE_START
    for token in ids:
        blank, state = place_word(codes[token], state)
        pieces.append(" " + texts[token] if blank else texts[token])
    return "".join(pieces)
