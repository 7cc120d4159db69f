"""Draw the architectures of the model families for the guide: docs/guide/figures/*.svg.

The pictures have a light background, to be readable on light and dark pages, and are narrow
enough for a phone.
"""

from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "guide" / "figures"

WIDTH = 420
BLUE, ORANGE, GREEN, PURPLE, YELLOW, GRAY = "#cfe5f5", "#fbdcb0", "#bfe6d8", "#f0d3e3", "#fbf3b4", "#eceef1"
INK, SOFT = "#1c2530", "#55606e"


class Drawing:
    """An SVG picture, drawn from top to bottom.

    Args:
        title: name of the picture for screen readers.
        height: height in units; the width is always `WIDTH`.
    """

    def __init__(self, title: str, height: int) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" role="img" font-family="system-ui, sans-serif" text-anchor="middle">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0 8 4 0 8z" fill="{INK}"/></marker></defs>',
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" fill="#fff" stroke="#d5dae0"/>',
        ]

    def box(self, x: float, y: float, width: float, height: float, text: str, fill: str, size: int = 14) -> None:
        """Draw a rounded box centered at a point, with a text in it."""
        self.parts.append(
            f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}" rx="6" '
            f'fill="{fill}" stroke="{INK}"/>'
        )
        self.text(x, y, text, size)

    def node(self, x: float, y: float, text: str, fill: str = "#fff") -> None:
        """Draw a small circle for an elementwise operation."""
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="11" fill="{fill}" stroke="{INK}"/>')
        self.text(x, y, text, 15)

    def text(self, x: float, y: float, text: str, size: int = 14, fill: str = INK, anchor: str = "middle") -> None:
        """Write a text that is centered vertically."""
        self.parts.append(
            f'<text x="{x:g}" y="{y + 0.35 * size:g}" font-size="{size}" fill="{fill}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
        )

    def line(self, *points: tuple[float, float], tip: bool = True, dashed: bool = False) -> None:
        """Draw a line through points, with an arrow tip at its end."""
        way = " ".join(f"{x:g},{y:g}" for x, y in points)
        style = (' marker-end="url(#tip)"' if tip else "") + (' stroke-dasharray="4 4"' if dashed else "")
        self.parts.append(f'<polyline points="{way}" fill="none" stroke="{INK}" stroke-width="1.4"{style}/>')

    def svg(self) -> str:
        """Return the picture as a file's text."""
        return "\n".join([*self.parts, "</svg>", ""])


def ngram() -> str:
    """Draw a trigram model: the last two words select a row of counts."""
    picture = Drawing("A trigram model", 250)
    words = ("the", "people", "of", "the", "United", "?")
    for index, word in enumerate(words):
        fill = YELLOW if word == "?" else BLUE if index > 2 else GRAY
        picture.box(40 + 68 * index, 214, 60, 30, word, fill)
    picture.line((214, 190), (214, 180), (342, 180), (342, 190), tip=False)
    picture.text(108, 180, "not seen by the model", 13, SOFT)
    picture.line((278, 180), (278, 150))
    picture.box(250, 128, 290, 40, "counts of what followed “the United”", ORANGE)
    picture.line((250, 108), (250, 84))
    for index, (word, share) in enumerate((("States", 0.93), ("Nations", 0.05), ("Kingdom", 0.02))):
        y = 24 + 22 * index
        picture.text(196, y, word, 13, anchor="end")
        picture.parts.append(
            f'<rect x="204" y="{y - 7}" width="{120 * share + 2:g}" height="14" fill="{GREEN}" stroke="{INK}"/>'
        )
    picture.text(60, 46, "p(next word)", 13, SOFT)
    return picture.svg()


def rnn() -> str:
    """Draw a recurrent network, unrolled over three words."""
    picture = Drawing("A recurrent network, unrolled over time", 290)
    columns = (95, 215, 335)
    for x, word, target in zip(columns, ("the", "United", "States"), ("United", "States", "of"), strict=True):
        picture.box(x, 262, 72, 28, word, BLUE)
        picture.line((x, 248), (x, 226))
        picture.box(x, 211, 88, 28, "embedding", GRAY, 13)
        picture.line((x, 197), (x, 164))
        picture.box(x, 142, 72, 42, "tanh", ORANGE)
        picture.line((x, 121), (x, 92))
        picture.box(x, 77, 72, 28, "softmax", GREEN, 13)
        picture.line((x, 63), (x, 40))
        picture.text(x, 26, f"“{target}”?", 14)
    for left, right, name in ((8, 95, "h₀"), (95, 215, "h₁"), (215, 335, "h₂"), (335, 449, "h₃")):
        start = left if left == 8 else left + 36
        picture.line((start, 142), (right - 36, 142))
        picture.text((start + right - 36) / 2, 128, name)
        if left != 335:
            picture.text((start + right - 36) / 2, 157, "U", 13, SOFT)
    for x in columns:
        picture.text(x + 12, 181, "W", 13, SOFT)
    return picture.svg()


def lstm() -> str:
    """Draw an LSTM cell."""
    picture = Drawing("An LSTM cell", 330)
    gates = ((90, "forget f", "σ", ORANGE), (175, "input i", "σ", ORANGE), (250, "new g", "tanh", BLUE))
    for x, name, function, fill in (*gates, (330, "output o", "σ", ORANGE)):
        picture.box(x, 222, 52, 30, function, fill)
        picture.text(x, 250, name, 13, SOFT)
        picture.line((x, 286), (x, 261))
    picture.line((12, 286), (330, 286), tip=False)
    picture.text(24, 271, "hₜ₋₁")
    picture.line((50, 320), (50, 286), tip=False)
    picture.text(68, 309, "xₜ")
    # The cell state runs along the top.
    picture.line((12, 60), (79, 60))
    picture.node(90, 60, "×")
    picture.line((101, 60), (201, 60))
    picture.node(212, 60, "+")
    picture.line((223, 60), (410, 60))
    picture.text(28, 44, "cₜ₋₁")
    picture.text(396, 44, "cₜ")
    picture.text(151, 34, "c, as far as f keeps it", 12, SOFT)
    picture.line((90, 207), (90, 72))
    picture.node(212, 140, "×")
    picture.line((175, 207), (175, 140), (200, 140))
    picture.line((250, 207), (250, 140), (224, 140))
    picture.line((212, 129), (212, 72))
    picture.box(330, 108, 52, 28, "tanh", GREEN)
    picture.line((330, 60), (330, 93))
    picture.line((330, 122), (330, 149))
    picture.node(330, 160, "×")
    picture.line((330, 207), (330, 172))
    picture.line((341, 160), (410, 160))
    picture.text(396, 144, "hₜ")
    return picture.svg()


def gru() -> str:
    """Draw a gated recurrent unit."""
    picture = Drawing("A gated recurrent unit", 300)
    picture.line((12, 48), (319, 48))
    picture.text(28, 32, "hₜ₋₁")
    picture.box(330, 48, 150, 34, "z · old + (1 − z) · new", GREEN, 12)
    picture.line((405, 48), (414, 48))
    picture.text(398, 20, "hₜ")
    for x, name, function, fill in (
        (90, "reset r", "σ", ORANGE),
        (200, "update z", "σ", ORANGE),
        (330, "new n", "tanh", BLUE),
    ):
        picture.box(x, 202, 52, 30, function, fill)
        picture.text(x + (0 if x < 330 else 52), 230 if x < 330 else 202, name, 13, SOFT)
    for x in (90, 200):
        picture.line((x, 262), (x, 239))
    picture.line((330, 262), (330, 218))
    picture.line((12, 262), (330, 262), tip=False)
    picture.text(180, 280, "xₜ, and hₜ₋₁ for the two gates", 13, SOFT)
    picture.text(28, 248, "xₜ")
    picture.line((40, 48), (40, 120), (79, 120))
    picture.node(90, 120, "×")
    picture.line((90, 187), (90, 132))
    picture.text(128, 106, "U hₜ₋₁ · r", 12, SOFT)
    picture.line((101, 120), (310, 120), (310, 187))
    picture.line((200, 187), (200, 80), (290, 80), (290, 66))
    picture.line((345, 187), (345, 66))
    return picture.svg()


def transformer() -> str:
    """Draw a decoder-only Transformer with one of its blocks opened."""
    picture = Drawing("A decoder-only Transformer", 480)
    picture.box(170, 456, 200, 28, "the   United   States", BLUE)
    picture.line((170, 442), (170, 420))
    picture.box(170, 405, 120, 28, "embedding", GRAY)
    picture.parts.append(
        f'<rect x="52" y="112" width="300" height="262" rx="10" fill="none" stroke="{SOFT}" stroke-dasharray="5 4"/>'
    )
    picture.text(360, 243, "× L", 18, SOFT, "start")
    for y, name, fill in ((322, "causal attention, rotary positions", ORANGE), (202, "feed-forward", PURPLE)):
        picture.line((170, y + 69 if y > 300 else y + 55), (170, y + 42))
        picture.box(170, y + 28, 120, 26, "norm", GRAY, 13)
        picture.line((170, y + 14), (170, y - 2), tip=False)
        picture.box(170, y - 9, 226, 30, name, fill, 13)
        picture.line((170, y - 24), (170, y - 41))
        picture.node(170, y - 53, "+")
        picture.line((170, y + 47), (312, y + 47), (312, y - 53), (182, y - 53))
    picture.text(262, 258, "residual", 12, SOFT)
    picture.line((170, 138), (170, 92))
    picture.box(170, 78, 120, 26, "norm", GRAY, 13)
    picture.line((170, 65), (170, 52))
    picture.box(170, 38, 120, 26, "softmax", GREEN, 13)
    picture.text(245, 38, "“United” “States” “of”?", 12, SOFT, "start")
    return picture.svg()


PICTURES = {"ngram": ngram, "rnn": rnn, "lstm": lstm, "gru": gru, "transformer": transformer}


def main() -> None:
    """Write all pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
