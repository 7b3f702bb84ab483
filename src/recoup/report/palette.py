"""The report's colours: told apart by colour-blind eyes, dark enough to read on white.

Categorical colours follow Okabe and Ito (2008), "Color Universal Design".
"""

from typing import Final

INK: Final = "#1b2733"
MUTED: Final = "#55626f"
LINE: Final = "#d5dce3"
PAPER: Final = "#ffffff"
PANEL: Final = "#f5f7f9"

BLUE: Final = "#0067a5"
SKY: Final = "#56b4e9"
GREEN: Final = "#007a5a"
ORANGE: Final = "#e69f00"
RED: Final = "#c2410c"
GREY: Final = "#8a96a3"

ACTIONS: Final = {"act": GREEN, "wait": ORANGE, "never": GREY}

CSS: Final = {
    "ink": INK, "muted": MUTED, "line": LINE, "paper": PAPER, "panel": PANEL, "blue": BLUE,
    "green": GREEN, "orange": ORANGE, "red": RED, "grey": GREY,
}  # fmt: skip
