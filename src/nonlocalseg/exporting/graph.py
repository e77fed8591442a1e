"""The graph that is exported: resize, normalise, network, resize, answer; and its trace with free sizes.

It wraps a Segmenter from outside, so that blocks and heads know nothing of files.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from nonlocalseg.blocks.basic import resize
from nonlocalseg.exporting.form import Answer, Form
from nonlocalseg.models.folding import fold
from nonlocalseg.models.segmenter import Segmenter

EXAMPLE = (2, 3, 208, 272)  # the image that is traced: no side is the other's, nor the double of one
BYTE = 256  # classes whose numbers fit one
SMALLEST = 16  # pixels to a side that a Segmenter sees


class Graph(nn.Module):
    """Images float32 `[B, 3, H, W]`, RGB in [0, 1] -> what `form.answer` says: float32 `[B, K, h, w]`, or classes
    `[B, h, w]`, uint8 (from 257 classes up int32). h and w are those of the images, or of `form.size`."""

    def __init__(self, network: Segmenter, form: Form) -> None:
        super().__init__()
        self.network, self.form = network, form

    @classmethod
    def of(cls, model: Segmenter, form: Form) -> Graph:
        """Of a copy of the model on the CPU, folded and in half precision as the form says."""
        network = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        network = fold(network) if form.fold else network
        return cls(_halved(network) if form.half else network, form)

    def forward(self, images: Tensor) -> Tensor:
        return answered(self.logits(images), self.form.answer)

    def logits(self, images: Tensor) -> Tensor:
        """float32 `[B, K, h, w]`, at the size of the answer."""
        seen = images if self.form.size is None else resize(images, self.form.size, self.network.align_corners)
        scores, padded = self.network.coarse(seen)
        scores = resize(scores.float(), padded, self.network.align_corners)[..., : seen.shape[2], : seen.shape[3]]
        size = (images.shape[2], images.shape[3])
        return resize(scores, size, self.network.align_corners) if self.form.host_size else scores


def answered(logits: Tensor, answer: Answer) -> Tensor:
    """What a graph makes of its logits."""
    if answer == "classes":
        return logits.argmax(1).to(torch.uint8 if logits.shape[1] <= BYTE else torch.int32)
    return logits.softmax(1) if answer == "probabilities" else logits


def trace(graph: Graph) -> torch.export.ExportedProgram:
    """The graph as torch.export sees it: batch, height and width free, or all of them fixed as the form says.

    Raises ValueError that names what stands in the way.
    """
    static, free = graph.form.static, torch.export.Dim.AUTO
    images = torch.zeros(EXAMPLE if static is None else (1, 3, *static))
    shapes = {"images": {0: free, 2: free, 3: free}} if static is None else None
    with torch.no_grad():  # what is assumed of sizes as assertions in the graph, not as guards, which would end it here
        program = torch.export.export(
            graph.eval(), (images,), dynamic_shapes=shapes, prefer_deferred_runtime_asserts_over_guards=True
        )
    _drop_assumptions(program)
    seen = [node for node in program.graph.nodes if node.op == "placeholder"][-1].meta["val"].shape  # after the weights
    fixed = [
        name for name, side in (("batch", seen[0]), ("height", seen[2]), ("width", seen[3])) if isinstance(side, int)
    ]
    if static is None and fixed:
        raise ValueError(
            f"this network exports with a fixed {' and '.join(fixed)} only: give --static H W, the size of the images"
        )
    return program


def smallest_side(program: torch.export.ExportedProgram) -> int:
    """Pixels from which on torch runs the program: it takes the size at which a map would have one position for another
    shape."""
    return max(SMALLEST, *(int(sides.lower) for sides in program.range_constraints.values()), 0)


def _drop_assumptions(program: torch.export.ExportedProgram) -> None:
    """Removes what the graph asserts of sizes. torch asserts that no map has one position and no two sizes are equal by
    chance, because memory would then be laid out in another way; what is computed is the same. Whether it is at such
    sizes is found when the file is compared with its model, and ONNX has no such assertions anyway."""
    for node in list(program.graph.nodes):
        if node.op == "call_function" and node.target == torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def _halved(network: Segmenter) -> Segmenter:
    """The network in float16, but for the normalisation of its images."""
    mean, std = network.mean, network.std
    network.half()
    network.mean, network.std = mean, std
    network.backbone.register_forward_pre_hook(lambda _, given: (given[0].half(),))
    return network
