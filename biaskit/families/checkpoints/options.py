"""Options of a checkpoint's processor: resolution, tiles, padding, conversation. Every choice becomes part of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from biaskit.errors import ModelError
from biaskit.families.base import ModelFamily

OPTIONS = {
    "min_pixels": "least number of pixels an image is scaled to",
    "max_pixels": "largest number of pixels an image is scaled to",
    "max_tiles": "most tiles an image is cut into, without the view of the whole image",
    "image_mode": "how the image is made square: pad or crop",
    "conversation": "the chat template: vicuna_v1",
}
"""Name → what it is; on the command line with hyphens."""

Choice = int | str | None


def configure(family: ModelFamily, processor: Any, config: Any, choices: Mapping[str, Choice]) -> dict[str, int | str]:
    """Apply a user's choices to a processor, and return those that are not None.

    Raises:
        ModelError: the family has no such option, or the value is impossible.
    """
    made = {name: value for name, value in choices.items() if value is not None}
    for name, value in made.items():
        if name not in OPTIONS:
            raise ModelError(f"there is no option {name}", f"the options are {', '.join(OPTIONS)}")
        if name not in family.options:
            own = ", ".join(f"--{one.replace('_', '-')}" for one in OPTIONS if one in family.options)
            raise ModelError(
                f"{family.title} has no --{name.replace('_', '-')}", f"it has {own}" if own else "its processor has no such choice"
            )
        if isinstance(value, int) and value < 1:
            raise ModelError(f"--{name.replace('_', '-')} {value} is less than 1", "give a number of pixels or tiles")
    family.configure(processor, config, made)
    return made
