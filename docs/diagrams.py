"""Draw the diagrams of the documentation into ``_static``: ``python docs/diagrams.py``."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent / "_static"
WIDTH = 720
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Theme:
    """The colours of one picture."""

    text: str
    muted: str
    line: str
    box: str
    group: str
    accent: str
    good: str
    bad: str


THEMES = {
    "light": Theme("#1b2230", "#566074", "#8a94a6", "#ffffff", "#f1f4f8", "#1d5fbf", "#1a7f4b", "#a85b00"),
    "dark": Theme("#e6e9ef", "#a3adbd", "#76808f", "#232830", "#1a1e24", "#7db2ff", "#5fcf95", "#f0b35a"),
}

STEPS = (
    # step, store or service, what is said there, whether the arrow leads to it
    ("Look it up", "Ledger", "was it sent before?", False),
    ("Check who and when", "Opt-outs, window, states", "may this person get it now?", False),
    ("Wait for a slot", "Rate limit", "shared by all processes", False),
    ("Record “sending”", "Ledger", "before the first byte", True),
    ("Send it", "Apptoto", "one HTTPS request", True),
    ("Record the outcome", "Ledger", "what is known about it", True),
)
SENDERS = ("Operator", "Batch", "Python task", "Notifier")

STATES = (
    # state, what leads to it, what a later try does, colour, whether a later try sends it again
    ("sent", "2xx with success: true", "Never sent again. (Or redirected.)", "good", False),
    ("rejected", "refused for good: most of 4xx", "A later try sends it, once corrected.", "line", True),
    ("not_sent", "no byte written; 429; 503 with Retry-After", "A later try sends it.", "line", True),
    ("unknown", "reset, timeout, 5xx, worker killed meanwhile", "Not retried: a person decides.", "bad", False),
)


class Picture:
    """An SVG with text as text.

    :param title: read by screen readers.
    """

    def __init__(self, theme: Theme, height: int, title: str) -> None:
        self.theme = theme
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            f' role="img" font-family="{FONT}">\n<title>{escape(title)}</title>\n<defs>'
            '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"'
            f' orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{theme.line}"/></marker></defs>'
        )
        self._parts: list[str] = []

    def box(self, x: int, y: int, width: int, height: int, *, fill: str, line: str | None = None) -> None:
        """Add a rounded box."""
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fill}"'
            f' stroke="{line or self.theme.line}"/>'
        )

    def text(self, x: int, y: int, text: str, *, size: int = 14, fill: str = "", bold: bool = False) -> None:
        """Add a line of text that begins at a point."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill or self.theme.text}"{weight}>{escape(text)}</text>'
        )

    def arrow(self, path: str, *, dashed: bool = False, both: bool = False) -> None:
        """Add an arrow along an SVG path."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        start = ' marker-start="url(#head)"' if both else ""
        self._parts.append(
            f'<path d="{path}" fill="none" stroke="{self.theme.line}" stroke-width="1.5"{dash}{start}'
            ' marker-end="url(#head)"/>'
        )

    def __str__(self) -> str:
        return "\n".join([self._head, *self._parts, "</svg>"]) + "\n"


def flow(theme: Theme) -> str:
    """Return the flow of a message."""
    picture = Picture(theme, 446, "The flow of a message: sender, outbox, ledger, Apptoto")
    picture.box(165, 8, 285, 430, fill=theme.group)
    picture.text(181, 34, "Outbox", size=15, bold=True, fill=theme.accent)
    for number, sender in enumerate(SENDERS):
        y = 116 + 60 * number
        picture.box(8, y, 112, 40, fill=theme.box)
        picture.text(20, y + 25, sender)
        picture.arrow(f"M122 {y + 20}L161 {y + 20}")
    for number, (step, place, what, is_to) in enumerate(STEPS):
        y = 50 + 64 * number
        picture.box(181, y, 253, 46, fill=theme.box)
        picture.text(195, y + 28, step)
        picture.box(494, y, 218, 46, fill=theme.box, line=theme.accent if place == "Apptoto" else None)
        picture.text(506, y + 20, place, bold=True)
        picture.text(506, y + 37, what, size=12, fill=theme.muted)
        picture.arrow(f"M436 {y + 23}L490 {y + 23}" if is_to else f"M492 {y + 23}L438 {y + 23}")
        if number:
            picture.arrow(f"M307 {y - 16}L307 {y - 2}")
    return str(picture)


def states(theme: Theme) -> str:
    """Return the states of a message."""
    picture = Picture(theme, 354, "The states of a message in the ledger")
    picture.box(8, 152, 104, 44, fill=theme.group)
    picture.text(26, 179, "no entry")
    picture.arrow("M114 174L160 174")
    picture.box(164, 152, 104, 44, fill=theme.box, line=theme.accent)
    picture.text(184, 179, "sending", bold=True)
    for number, (state, cause, later, colour, is_sent_again) in enumerate(STATES):
        y = 8 + 88 * number
        picture.box(372, y, 294, 74, fill=theme.box, line=getattr(theme, colour))
        picture.text(386, y + 23, state, bold=True)
        picture.text(386, y + 43, cause, size=12)
        picture.text(386, y + 61, later, size=12, fill=theme.muted)
        picture.arrow(f"M270 {162 + 8 * number}L368 {y + 37}", both=is_sent_again)
    picture.arrow("M668 300C700 290 700 230 670 221", dashed=True)
    picture.arrow("M668 316C724 290 724 70 670 45", dashed=True)
    return str(picture)


def pictures() -> dict[str, str]:
    """Return the diagrams by file name."""
    return {f"{draw.__name__}-{name}.svg": draw(theme) for draw in (flow, states) for name, theme in THEMES.items()}


if __name__ == "__main__":
    for file_name, content in pictures().items():
        (FOLDER / file_name).write_text(content, encoding="utf-8")
