"""Pictures of masks, scores, training and explanations; sizes, class names and colours are arguments.

Every picture can be told apart without hue: regions carry their class's number and an outline, curves their own
marker and dash, and colour maps grow steadily in lightness. The first default colours are those of Okabe and Ito
(Color Universal Design, 2008).
"""

from nonlocalseg.drawing.explanations import (
    anchors_picture,
    comparison,
    error_comparison,
    features_picture,
    local_picture,
    masks_picture,
)
from nonlocalseg.drawing.palettes import (
    IGNORE,
    INK,
    OKABE_ITO,
    RIGHT,
    UNSCORED,
    VOID_COLOUR,
    WHITE,
    WRONG,
    Colour,
    Palette,
    colour,
    default_palette,
    error_map,
    overlay,
    shades,
)
from nonlocalseg.drawing.pictures import (
    SMALLEST_SIDE,
    SMALLEST_TEXT,
    error_map_with_legend,
    legend,
    marked,
    montage,
    overlay_with_legend,
    with_legend,
)
from nonlocalseg.drawing.plots import confusion_picture, curves, save, score_table

__all__ = [
    "IGNORE",
    "INK",
    "OKABE_ITO",
    "RIGHT",
    "SMALLEST_SIDE",
    "SMALLEST_TEXT",
    "UNSCORED",
    "VOID_COLOUR",
    "WHITE",
    "WRONG",
    "Colour",
    "Palette",
    "anchors_picture",
    "colour",
    "comparison",
    "confusion_picture",
    "curves",
    "default_palette",
    "error_comparison",
    "error_map",
    "error_map_with_legend",
    "features_picture",
    "legend",
    "local_picture",
    "marked",
    "masks_picture",
    "montage",
    "overlay",
    "overlay_with_legend",
    "save",
    "score_table",
    "shades",
    "with_legend",
]
