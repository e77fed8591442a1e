"""The verb that shows what models attend to and where they differ: explain."""

from __future__ import annotations

from typing import Annotated

from nonlocalseg.choices import pick
from nonlocalseg.cli.options import Given, verb
from nonlocalseg.cli.shared import OnDevice
from nonlocalseg.cli.terminal import output, say
from nonlocalseg.data.source import DataSource
from nonlocalseg.files import check_folder
from nonlocalseg.values import Metavar, Names, Natural, Positional, Side, value


def kinds() -> str:
    """The kinds of pictures, as the help shows them."""
    from nonlocalseg.explanation.pictures import PICTURES

    return "\n".join(f"  {name:9} {picture.help}" for name, picture in PICTURES.items()) + (
        "\n\nAttention says where a block looks. It does not say why the model decides as it does."
    )


@value
class Explain(OnDevice):
    """The verb's own options."""

    model: Annotated[str, Positional()]
    """The model."""
    image: Annotated[str, Positional()]
    """The photograph."""
    out: Annotated[str, Metavar("DIR")]
    """Folder for the pictures."""
    pixel: Annotated[tuple[Natural, Natural] | None, Metavar("X Y")] = None
    """Column and row of the pixel, counted from the top left; by default the middle of the photograph."""
    kind: Annotated[str | None, Metavar("KIND")] = None
    """The only kind of picture to draw."""
    compare: Annotated[Names, Metavar("MODEL")] = ()
    """Further models, shown beside the first."""
    truth: Annotated[str | None, Metavar("FILE")] = None
    """Label image of the photograph as its data set stores it. The model knows what the values or colours mean in the
    data that it was trained with; --data, with --root where the files say it, takes another data set's coding."""
    own_basis: bool = False
    """Draw the features of each model in a basis of its own, instead of one basis for all."""
    short_side: Side | None = None
    """Pixels to which the shorter side of the photograph is brought before the models see it; by default as the model
    was told to, and photographs of more than two million pixels are made that small."""
    backbone_weights: Annotated[str | None, Metavar("FILE")] = None
    """Other weights of the backbone, such as ImageNet's, whose features are shown beside the model's."""


@verb(Explain, DataSource, more=kinds)
def explain(own: Explain, given: Given) -> None:
    """Show where a model looks at one pixel, what its stages say, and how models differ, as pictures.

    MODEL is the folder of a run, a saved model, a name of the zoo, or one on the Hugging Face hub; IMAGE is a
    photograph. Written to --out, as PNG and plots as SVG too, is everything that the model has and the options allow, or
    one --kind:

    Examples:
        nonlocalseg explain runs/demo/ann photo.jpg --pixel 320 200 --out explained
        nonlocalseg explain runs/gald photo.jpg --compare runs/ldga --kind masks --out explained
        nonlocalseg explain runs/ann photo.jpg --compare runs/fcn --truth label.png --kind errors --out explained
        nonlocalseg explain runs/mine photo.jpg --truth label.png --data folder --root my-images --out explained
    """
    from nonlocalseg.explanation.pictures import PICTURES, write_pictures
    from nonlocalseg.explanation.subject import Coding, open_subject, own_label_map

    folder = check_folder(own.out)
    if own.kind is not None:
        pick("kind of picture", own.kind, PICTURES)
    models = (own.model, *own.compare)
    source = DataSource(**given)
    coding = Coding(source.data, *source.label_map()) if source.data else None
    subject = open_subject(
        models,
        own.image,
        own.pixel,
        own.truth,
        coding,
        own.backbone_weights,
        own.device,
        not own.own_basis,
        own.short_side,
    )
    for name, found in subject.explanations.items():
        if own.short_side is None and found.seen != found.image.shape[:2]:
            say(f"{name} saw {own.image} at {found.seen[1]}x{found.seen[0]}; --short-side N chooses another size")
    if own.truth is not None and coding is None and own_label_map(subject.networks[subject.first]) is None:
        say(
            f"{own.model} does not say how labels are stored: {own.truth} is read as class numbers (--data says otherwise)"
        )
    output().print("\n".join(map(str, write_pictures(subject, folder, own.kind))))
