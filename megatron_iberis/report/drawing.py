"""How pictures are drawn: colours, fonts, and a PNG that is the same for the same figure.

matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_iberis.config.stage import Stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, DPI = 9.0, 110
COLOURS: dict[Stage, str] = {
    "base": "#0072B2",
    "mid": "#E69F00",
    "sft": "#009E73",
    "dpo": "#CC79A7",
    "rl": "#D55E00",
}
"""Okabe and Ito's, which people with any colour vision tell apart."""
GREY = "#555555"
_FOUND_FONTS = (
    "IPAexGothic",
    "IPAGothic",
    "Noto Sans CJK JP",
    "Noto Sans JP",
    "Hiragino Sans",
    "Yu Gothic",
    "MS Gothic",
)
_STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "svg.hashsalt": "iberis",
}


def installed() -> bool:
    """Whether matplotlib is there."""
    return find_spec("matplotlib") is not None


def japanese_font() -> str | None:
    """The name of a font with Japanese letters, the packaged one first; None where there is none."""
    from matplotlib import font_manager

    package = find_spec("matplotlib_fontja")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder) / "fonts" / "ipaexg.ttf"
        if path.is_file():
            font_manager.fontManager.addfont(str(path))
            return font_manager.FontProperties(fname=str(path)).get_name()
    there = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in _FOUND_FONTS if name in there), None)


@contextmanager
def style() -> Iterator[None]:
    """What is drawn inside has the report's fonts and colours; nobody else's settings change."""
    import matplotlib

    font = japanese_font()
    with matplotlib.rc_context({**_STYLE, "font.family": ["DejaVu Sans", *([font] if font else [])]}):
        yield


def png(figure: Figure) -> bytes:
    """In 256 colours, which is all that lines and letters need; without the date and the program."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.frombuffer("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")
    stream = io.BytesIO()
    image.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(stream, "png", optimize=True)
    return stream.getvalue()


def new_figure(height: float) -> Figure:
    """Of the report's width; height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
