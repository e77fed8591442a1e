"""Pictures of masks, scores, training and explanations; sizes, class names and colours are arguments.

Every picture can be told apart without hue: regions carry their class's number and an outline, curves their own
marker and dash in the colours of Okabe and Ito (Color Universal Design, 2008), and colour maps grow steadily in
lightness.
"""

from nonlocalseg.drawing.attention import anchors_picture, local_picture, masks_picture
from nonlocalseg.drawing.colours import (
    INK,
    OKABE_ITO,
    RIGHT,
    UNSCORED,
    VOID_COLOUR,
    WHITE,
    WRONG,
    colour,
    diverging,
    error_map,
    ink_on,
    overlay,
    shades,
)
from nonlocalseg.drawing.comparisons import comparison, error_comparison
from nonlocalseg.drawing.features import features_picture
from nonlocalseg.drawing.pictures import (
    SMALLEST_SIDE,
    SMALLEST_TEXT,
    TABLE_TEXT,
    TABLE_WIDTH,
    enlarged,
    legend,
    marked,
    montage,
    overlay_with_legend,
    percent,
    table_width,
    with_legend,
)
from nonlocalseg.drawing.plots import confusion_picture, curves, rastered, save, score_table

__all__ = [
    "INK",
    "OKABE_ITO",
    "RIGHT",
    "SMALLEST_SIDE",
    "SMALLEST_TEXT",
    "TABLE_TEXT",
    "TABLE_WIDTH",
    "UNSCORED",
    "VOID_COLOUR",
    "WHITE",
    "WRONG",
    "anchors_picture",
    "colour",
    "comparison",
    "confusion_picture",
    "curves",
    "diverging",
    "enlarged",
    "error_comparison",
    "error_map",
    "features_picture",
    "ink_on",
    "legend",
    "local_picture",
    "marked",
    "masks_picture",
    "montage",
    "overlay",
    "overlay_with_legend",
    "percent",
    "rastered",
    "save",
    "score_table",
    "shades",
    "table_width",
    "with_legend",
]
