"""Self-contained HTML pages: templates, plots as SVG and pictures as data, readable in light and in dark."""

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from src.common.files import write_text

TEMPLATES = Path(__file__).with_name("templates")
INK = "#123456"  # plots are drawn in this colour, which is then replaced by the page's text colour


def write_page(path: Path, template: str, **content: Any) -> None:
    """Fill a template of :data:`TEMPLATES` and write the page; all content is escaped unless it is ``Markup``."""
    import jinja2  # slow to import

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    write_text(path, environment.get_template(template).render(**content))


def plot(draw: Callable[[Any], None], size: tuple[float, float] = (5.2, 3.2)) -> Any:
    """What ``draw`` draws into axes, as inline SVG for a page."""
    from markupsafe import Markup
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    look: Any = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    look |= dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False)
    look |= {"svg.fonttype": "none", "svg.hashsalt": "page", "font.size": 9}
    with rc_context(look):
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        axes = figure.subplots()
        axes.set_facecolor("none")
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return Markup(re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL))


def legend_name(name: str) -> str:
    """A name that matplotlib's legend shows as it is: ``$`` would begin a formula, and ``_`` hide the name."""
    text = name.replace("$", r"\$")
    return f"\u200b{text}" if text.startswith("_") else text


def picture(image: np.ndarray, quality: int = 88) -> str:
    """An ``(H, W, 3)`` uint8 RGB image as a data URI (JPEG)."""
    content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()
