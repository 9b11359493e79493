"""`biaskit models check`: whether biaskit works correctly with a checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from biaskit.cli import complete
from biaskit.cli.checkpoint import Checkpoint, with_checkpoint
from biaskit.cli.console import echo, echo_json
from biaskit.cli.options import AsJson
from biaskit.errors import SourceError

if TYPE_CHECKING:
    from PIL.Image import Image

    from biaskit.engine.check import Finding

_MARKS = {True: "ok  ", False: "FAIL", None: "–   "}


@with_checkpoint
def check(
    *,
    model: Annotated[str, typer.Argument(autocompletion=complete.models, help="Short name, hub id, or checkpoint directory.")],
    image: Annotated[
        Path | None, typer.Option("--image", "-i", help="The image for attention and pruning. (default: a generated one)")
    ] = None,
    checkpoint: Checkpoint,
    as_json: AsJson = False,
) -> None:
    """Try a checkpoint out with its own weights: token layout, attention row, and exactness of pruning. Exits with 1 if a probe fails.

    The first answer to "does it work with my model?": a lit spot must be seen by the cell that the layout names, the recorded attention row
    must be eager attention's, keeping everything must change no bit, and a quarter kept must equal a slow reference without a cache.
    """
    from biaskit.engine.check import check_checkpoint

    picture = None if image is None else _opened(image)
    loaded = checkpoint.load(model)
    found = check_checkpoint(loaded, image=picture, report=None if as_json else _told)
    passed = all(one.passed is not False for one in found)
    if as_json:
        facts: dict[str, Any] = {"model": loaded.name, "revision": loaded.revision, "family": loaded.family.title, "passed": passed}
        facts["options"] = dict(loaded.options)
        echo_json({**facts, "findings": [asdict(one) for one in found]})
    else:
        seconds = sum(one.seconds for one in found)
        echo(f"{loaded.name}: {'all probes passed' if passed else 'do not use it until this is fixed'} ({seconds:.1f} s)")
    if not passed:
        raise typer.Exit(1)


def _told(one: Finding) -> None:
    echo(f"{_MARKS[one.passed]}  {one.probe}: {one.said} ({one.seconds:.1f} s)")


def _opened(path: Path) -> Image:
    from biaskit.images.decode import decode

    try:
        return decode(path.read_bytes(), path.name)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}", "give an image file") from error
