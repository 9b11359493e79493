"""A checkpoint whose attention is not finite for chosen pictures: what half precision does to one photograph of a thousand."""

from __future__ import annotations

from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.tiny import tiny_model
from biaskit.images.base import View
from biaskit.images.generated import GeneratedSource

MARK = (255, 0, 254)


class Poisonous(View):
    """Generated pictures, of which some carry a mark in their first pixel."""

    def __init__(self, n, bad):
        super().__init__(GeneratedSource(n, 0), range(n))
        self.bad = set(bad)

    def load(self, index):
        image = super().load(index)
        if index in self.bad:
            image.putpixel((0, 0), MARK)
        return image


def poisoned(name="llava-1.5"):
    """A tiny checkpoint whose pixel values are NaN for marked pictures, and right for those beside them in the batch."""
    model, processor, family = tiny_model(name)

    class Family(type(family)):
        def prepare(self, processor, config, images, prompts):
            made = super().prepare(processor, config, images, prompts)
            for row, (image,) in enumerate(images):
                if image.getpixel((0, 0)) == MARK:
                    made.inputs["pixel_values"][row] = float("nan")
            return made

    return Loaded(model, processor, Family(), name, "test")
