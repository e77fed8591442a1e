"""What an exported graph takes, computes and answers: the options of an export."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BeforeValidator

from nonlocalseg.values import Metavar, Side, pair, value
from nonlocalseg.view import WHOLE, View

Seen = Annotated[tuple[Side, Side], BeforeValidator(pair), Metavar("H W")]
"""Height and width of an image that a network can see; one number for both."""
Answer = Literal["classes", "probabilities", "logits"]


@value
class Form:
    """By default batch, height and width are free, and the answer is the scores at the size of the images."""

    fold: bool = True
    """Fold the model first: the same function with less arithmetic."""

    half: bool = False
    """Numbers in 16 bits: of ONNX the arithmetic, which is for GPUs, of OpenVINO what is stored alone; not for pt2."""

    int8: bool = False
    """Weights and activations in 8 bits, for CPUs, with ranges found on photographs (calibrate); not for pt2."""

    answer: Answer = "logits"
    """What the file answers: the best class of each pixel (one byte a pixel up to 256 classes), or the probabilities or
    logits of all classes in float32."""

    size: Seen | None = None
    """Height and width in pixels to which the graph resizes every image before the network; by default none. The answer
    has this size as well."""

    host_size: bool = False
    """With a size: the scores are resized back, inside the graph, to the image that came in."""

    static: Seen | None = None
    """The only height and width in pixels that the file takes, one image at a time, for runtimes that need it."""

    def __post_init__(self) -> None:
        if self.host_size and self.size is None:
            raise ValueError("host_size: without a size nothing is resized, so leave it out, or give size")
        if self.half and self.int8:
            raise ValueError("half: a file in INT8 is smaller and faster already; give one of half and int8")

    @property
    def precision(self) -> Literal["float32", "half", "int8"]:
        return "int8" if self.int8 else "half" if self.half else "float32"

    def view_of(self, own: View) -> View:
        """How a file sees images, of a model that sees them as `own` says: resizing that the graph does is not done before
        it; fixed sizes are those of windows."""
        if self.static is not None:
            return replace(own, mode="slide", crop=self.static, stride=None, small="pad", score_resize="bilinear")
        return WHOLE if self.size is not None else own

    @property
    def resized(self) -> bool:
        """Whether the answer has the working size rather than the image's."""
        return self.size is not None and not self.host_size
