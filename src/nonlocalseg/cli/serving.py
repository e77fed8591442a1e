"""The verb that serves a page and a JSON endpoint: serve."""

from __future__ import annotations

from typing import Annotated

from nonlocalseg.cli.options import Given, verb
from nonlocalseg.cli.shared import OnDevice
from nonlocalseg.cli.terminal import output
from nonlocalseg.serving.limits import Limits
from nonlocalseg.values import Metavar, Natural, Positional, names_of, value
from nonlocalseg.view import View


@value
class Serve(OnDevice, Limits):
    """The verb's own options."""

    model: Annotated[str, Positional()]
    """The model."""
    model2: Annotated[str | None, Positional()] = None
    """A second model, to compare."""
    host: Annotated[str, Metavar("ADDRESS")] = "127.0.0.1"
    """The address to listen on; 0.0.0.0 lets every machine of the network in, which nothing else guards."""
    port: Natural = 7860
    """The port; 0 takes a free one."""
    setting: Annotated[str | None, Metavar("NAME")] = None
    """A paper's way to see images (`evaluate --help` lists them), instead of the options from --mode on."""


@verb(Serve, View)
def serve(own: Serve, given: Given) -> None:
    """Serve a page to try a model in the browser, or two beside each other, and a JSON endpoint.

    MODEL and MODEL2 are folders of runs, saved models, or names of the zoo. The page, at the address that is printed,
    takes a photograph by drop, paste, file or camera, and shows classes, probabilities, uncertain regions and, for the
    pixel that is clicked, what the model attends to. POST /predict answers with a mask or with JSON; /docs describes it.
    Only this machine is let in unless --host says otherwise. What is sent stays in memory, leaves the machine to
    nobody, and is forgotten after half an hour. Ctrl-C or TERM stops the server. Needs the extra serve.

    Examples:
        nonlocalseg serve runs/demo/ann
        nonlocalseg serve runs/demo/fcn runs/demo/ann --port 0
        nonlocalseg serve mmseg:ann-r101-ade20k --max-megapixels 12 --queue 4
    """
    from nonlocalseg.serving.server import serve

    limits = Limits(**{name: getattr(own, name) for name in names_of(Limits)})
    models = [own.model, *([own.model2] if own.model2 is not None else [])]
    serve(
        models,
        host=own.host,
        port=own.port,
        limits=limits,
        setting=own.setting,
        device=own.device,
        ready=output().print,
        **given,
    )
