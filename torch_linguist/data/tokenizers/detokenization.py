"""Words set together as a person writes them: no blank before a comma, none around ``@-@``.

Word by word and without looking ahead, so that a text can be shown while it comes. TorchScript compiles `place_word`,
so that an exported model writes as the package does; hence its plain code without constants from outside, and without
looking at single characters, which are bytes there.
"""


def place_word(word: str, glued: bool, quoted: bool) -> tuple[str, bool, bool]:
    """How the next word of a line joins on.

    Args:
        word: one token; not empty.
        glued: whether the line so far asks for no blank: at its start, after an opening bracket and the like.
        quoted: whether a straight quotation mark is open.

    Returns:
        What to append, and `glued` and `quoted` after it.
    """
    if word == "@-@" or word == "@,@" or word == "@.@":
        return word[1:2], True, quoted
    if word == '"':
        if quoted:
            return word, False, False
        return word if glued else " " + word, True, True
    dashes = len(word) > 1 and word.strip("-") == ""
    if dashes or word == "—" or word == "/":
        return word, True, quoted
    closing, opening = False, False
    for mark in [",", ".", ";", ":", "!", "?", "%", ")", "]", "}", "…", "’", "”"]:
        closing = closing or word.startswith(mark)
    for ending in ["n't", "'s", "'re", "'ve", "'ll", "'d", "'m", "'t"]:
        closing = closing or word == ending
    for mark in ["(", "[", "{", "$", "£", "#", "“"]:
        opening = opening or word.endswith(mark)
    return word if glued or closing else " " + word, opening, quoted


def detokenize_words(text: str) -> str:
    """Takes away blanks that tokenizing put in: before punctuation, inside brackets and quotes, around ``@-@``."""
    pieces: list[str] = []
    glued, quoted = True, False
    for word in text.split(" "):
        if word:
            piece, glued, quoted = place_word(word, glued, quoted)
            pieces.append(piece)
    return "".join(pieces)
