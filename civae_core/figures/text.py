"""Text on pictures: one font everywhere, and lines wrapped to a width in pixels."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONT_SIZE = 13
INK = (32, 33, 36)
WARNING_INK = (176, 72, 0)


@dataclass(frozen=True)
class Typesetter:
    """Measures and draws short texts in one font size (in pixels)."""

    size: int = FONT_SIZE

    @property
    def line_height(self) -> int:
        return round(self.size * 1.3)

    def width(self, text: str) -> int:
        """Width of a line in pixels."""
        return round(_font(self.size).getlength(text)) + 1

    def broken(self, text: str, width: int) -> list[str]:
        """Wrap the text to lines of at most `width` pixels, if its words allow it; line breaks are kept."""
        lines: list[str] = []
        for paragraph in text.split("\n"):
            line = ""
            for word in paragraph.split():
                longer = f"{line} {word}".strip()
                if line and self.width(longer) > width:
                    lines.append(line)
                    line = word
                else:
                    line = longer
            lines.append(line)
        return lines

    def draw(
        self,
        sheet: Image.Image,
        lines: list[str],
        box: tuple[int, int, int, int],
        *,
        centred: bool = True,
        ink: tuple[int, int, int] = INK,
    ) -> None:
        """Draw lines into a box (left, top, right, bottom), centred vertically."""
        left, top, right, bottom = box
        brush = ImageDraw.Draw(sheet)
        y = top + (bottom - top - len(lines) * self.line_height) / 2
        for line in lines:
            x = left + (right - left - self.width(line)) / 2 if centred else left
            brush.text((max(x, left), y), line, fill=ink, font=_font(self.size))
            y += self.line_height


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Matplotlib includes DejaVu on every machine; Pillow's own font has neither β and τ nor arrows. Only
    # matplotlib's folder is looked up, because importing it takes longer than drawing.
    found = find_spec("matplotlib")
    assert found is not None and found.origin is not None
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(folder / "DejaVuSans.ttf", size)
