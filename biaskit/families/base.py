"""What a model family knows: how to prepare inputs, and where each of its visual tokens sits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import ImageSkipped, ModelError
from biaskit.grid import Layout, PatchIndex, Tokens, join, join_patches
from biaskit.tasks.conventions import BoxConvention, Wording

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import PreTrainedModel

    from biaskit.families.checkpoints.tower import Tower

Size = tuple[int, int]
"""(rows, cols) of an image in pixels."""


PREPROCESSOR, PROCESSOR, TOKENIZER = "preprocessor_config.json", "processor_config.json", "tokenizer_config.json"
"""Files of a checkpoint with the settings of its image processor, of the whole processor, and of its tokenizer."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A batch ready for the model.

    Attributes:
        inputs: what the stock model takes, left-padded: `input_ids` [B, S], `attention_mask` [B, S], pixel values, sizes or grids.
        layouts: where the visual tokens of each of the B samples sit.
    """

    inputs: dict[str, Tensor]
    layouts: list[Layout]

    def __len__(self) -> int:
        """Return B."""
        return len(self.layouts)

    def pin_memory(self) -> Prepared:
        """Pin the tensors, so that copying them to a GPU does not stop the host."""
        return Prepared({name: value.pin_memory() for name, value in self.inputs.items()}, self.layouts)


class ModelFamily(ABC):
    """One architecture. Stateless; everything is read from the checkpoint's config, so third-party checkpoints of the class work too.

    Attributes:
        title: display name. processor: name of the stock processor class.
        image_processor: name of the stock image processor class, without backend suffix.
        wording: its published question templates. box_convention: how its answers write boxes.
        options: what a user may choose of the processor; see `configure`.
        fixed_tokens: True if every image gets the same number of visual tokens, regardless of its size.
        within: model types of larger models with one of this family inside → the name of its part in their config.
        bidirectional_images: True if the tokens of an image attend to one another in both directions; two images never adjoin.
    """

    title: ClassVar[str]
    processor: ClassVar[str]
    image_processor: ClassVar[str]
    wording: ClassVar[Wording] = Wording()
    box_convention: ClassVar[BoxConvention] = BoxConvention()
    options: ClassVar[frozenset[str]] = frozenset()
    fixed_tokens: ClassVar[bool] = False
    within: ClassVar[Mapping[str, str]] = {}
    bidirectional_images: ClassVar[bool] = False

    @abstractmethod
    def tokens(self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None) -> list[Tokens]:
        """Return the visual tokens of every image of the batch, in sequence order, images in prompt order.

        Args:
            config: the checkpoint's config.
            inputs: the processor's output.
            sizes: (rows, cols) in pixels of the images, or None if the original image sizes are unavailable.
        """

    def framed(self, config: Any, image_processor: Any, tokens: list[Tokens], sizes: Sequence[Size]) -> list[Tokens]:
        """Set the part of the image that each plane covers, for families where only the image processor's settings determine it."""
        return tokens

    @abstractmethod
    def canonical(self, config: Any) -> dict[str, tuple[int, int]]:
        """Return the (rows, cols) of each plane of a prior; images of other sizes are resampled to it before averaging."""

    def patches(self, config: Any, inputs: Mapping[str, Tensor]) -> list[PatchIndex]:
        """Return which patches of the vision tower are behind each visual token of every image of the batch, as `tokens` orders them.

        Methods that read the vision tower need it; a family without it works with all other methods.

        Args:
            config, inputs: as `tokens`.

        Raises:
            ModelError: the family does not implement it.
        """
        raise ModelError(f"{type(self).__name__} does not say which patches are behind a visual token", "write ModelFamily.patches for it")

    def patch_index(self, config: Any, inputs: Mapping[str, Tensor], layouts: Sequence[Layout]) -> list[PatchIndex]:
        """Return which patches are behind each visual token of each of B samples; `layouts` [B] are the samples' layouts.

        Raises:
            ModelError: the family does not implement `patches`, or returns another number of tokens than a layout has.
        """
        pending = self.patches(config, inputs) if "pixel_values" in inputs else []
        pending.reverse()
        found = []
        for layout in layouts:
            mine: list[PatchIndex] = []
            while pending and sum(len(part.index) for part in mine) < len(layout):
                mine.append(pending.pop())
            found.append(join_patches(mine))
            if len(found[-1].index) != len(layout):
                raise ModelError(
                    f"patches behind {len(found[-1].index)} visual tokens, but the sample has {len(layout)}",
                    f"{type(self).__name__}.patches must follow {type(self).__name__}.tokens",
                )
        return found

    def tower(self, model: PreTrainedModel) -> Tower:
        """Return the blocks of the vision tower and the projector behind it.

        Raises:
            ModelError: the model has no tower under the attribute names of the supported families.
        """
        from biaskit.families.checkpoints.tower import tower_of

        return tower_of(model)

    def default_layers(self, config: Any) -> tuple[int, ...]:
        """Return the decoder layers whose attention the presets of D2Pruner read: K − 1 for each K it recommends for this family."""
        return (1,)

    def token_pixels(self, config: Any) -> float:
        """Return how many pixels of the resized image a visual token is wide and high."""
        vision = config.vision_config
        return float(vision.image_size / (vision.image_size // vision.patch_size))

    def resized(self, config: Any, layout: Layout) -> Size:
        """Return (rows, cols) in pixels of a sample's first image as the vision tower received it, without padding.

        If tokens were interpolated afterwards (LLaVA-OneVision's large canvases), the size that corresponds to the remaining tokens.
        """
        mine = {plane.name: plane for plane in layout.planes if plane.image == 0}
        plane = next(mine[name] for name in ("canvas", "image", "base") if name in mine)
        step = self.token_pixels(config)
        return round(plane.rows * step), round(plane.cols * step)

    def processor_settings(self, config: Any) -> dict[tuple[str, str], Any]:
        """Return the processor settings that the model requires, (file, key) → value: used to explain a mismatch of the two."""
        return {}

    def configure(self, processor: Any, config: Any, choices: Mapping[str, int | str]) -> None:
        """Apply a user's choices to a processor. Keys are some of `options`; `biaskit.families.checkpoints.options` describes them.

        Raises:
            ModelError: an impossible value.
        """

    def check(self, config: Any) -> None:
        """Raise ModelError if a checkpoint of this class has a form that is not supported."""

    def prepare(self, processor: Any, config: Any, images: Sequence[Sequence[Image]], prompts: Sequence[str]) -> Prepared:
        """Turn B samples into one left-padded batch, each prompt wrapped in the model's own chat template with its images first.

        Args:
            processor, config: the checkpoint's. images: the images of each sample, RGB. prompts: one text per sample.

        Raises:
            ImageSkipped: the processor refuses an image, or makes no visual token of it.
            ModelError: the checkpoint has no chat template, a prompt holds one of its special tokens, or placeholders and visual tokens do
                not match.
        """
        check_prompts(processor, prompts)
        texts = [chat_text(processor, prompt, n_images=len(mine)) for mine, prompt in zip(images, prompts, strict=True)]
        return self.encode(processor, config, images, texts)

    def encode(self, processor: Any, config: Any, images: Sequence[Sequence[Image]], texts: Sequence[str]) -> Prepared:
        """Turn B samples whose texts went through the chat template already into one left-padded batch.

        Args:
            processor, config, images: as `prepare`. Either every sample has an image, or none has.
            texts: with one placeholder for each image of the sample.

        Raises:
            ImageSkipped, ModelError: as `prepare`.
        """
        pictures = [list(mine) for mine in images] if any(images) else None
        try:
            batch = processor(images=pictures, text=list(texts), padding=True, padding_side="left", return_tensors="pt")
        except Exception as error:  # processors of different families raise different kinds of errors
            shapes = ", ".join(f"{image.width}×{image.height}" for mine in images for image in mine)
            raise ImageSkipped(
                f"the processor refuses {shapes} pixels: {type(error).__name__}: {error}", "give images of another size or shape"
            ) from error
        inputs = dict(batch)
        sizes = [(image.height, image.width) for mine in images for image in mine]
        return Prepared(inputs, self.layout(config, inputs, sizes, processor.image_processor))

    def layout(
        self, config: Any, inputs: Mapping[str, Tensor], sizes: Sequence[Size] | None = None, image_processor: Any = None
    ) -> list[Layout]:
        """Return where the visual tokens of each sample sit.

        Works on any output of the stock processor. `sizes` (rows, cols in pixels, all images in prompt order) and the image processor are
        needed only where the inputs do not tell: the part of the image that LLaVA-1.5's crop or padding covers.

        Raises:
            ModelError: the placeholders in `input_ids` do not match the images.
        """
        pending = self.tokens(config, inputs, sizes) if "pixel_values" in inputs else []
        if sizes is not None and image_processor is not None and pending:
            pending = self.framed(config, image_processor, pending, sizes)
        pending.reverse()
        layouts = []
        for ids in inputs["input_ids"].cpu().numpy():
            positions = np.flatnonzero(ids == config.image_token_id)
            mine: list[Tokens] = []
            while pending and sum(map(len, mine)) < len(positions):
                mine.append(pending.pop())
            found = sum(map(len, mine))
            if found != len(positions):
                raise ModelError(
                    f"{len(positions)} image placeholders in the prompt, but the images give {found} visual tokens",
                    "pass the processor's whole output, and images and prompts of the same batch",
                )
            joined = join([_numbered(tokens, image) for image, tokens in enumerate(mine)])
            layouts.append(Layout(positions, joined.planes, joined.plane, joined.row, joined.col))
        if pending:
            raise ModelError(
                f"{len(pending)} images have no placeholder in any prompt", "put one image placeholder per image into the prompt"
            )
        return layouts

    def shown(self, config: Any, inputs: Mapping[str, Tensor], layouts: Sequence[Layout]) -> list[NDArray[np.bool_]]:
        """Return which visual tokens of each sample show its pictures, not padding: [N] bool each.

        All, unless the processor pads pictures and leaves the padding among the visual tokens.
        """
        return [np.ones(len(layout), bool) for layout in layouts]


def _numbered(tokens: Tokens, image: int) -> Tokens:
    """Mark the planes as those of image number `image` of the prompt."""
    if image == 0:
        return tokens
    from dataclasses import replace

    return replace(tokens, planes=tuple(replace(plane, image=image) for plane in tokens.planes))


_MARKERS = ("ref", "box", "quad", "|object_ref_start|", "|object_ref_end|", "|box_start|", "|box_end|", "|quad_start|", "|quad_end|")
_PUBLISHED = frozenset(f"<{slash}{name}>" for name in _MARKERS for slash in ("", "/"))  # they are part of published questions


def check_prompts(processor: Any, prompts: Sequence[str]) -> None:
    """Refuse a prompt with a text that the tokenizer would take for a special token: an image's place, or the end of the turn.

    The markers of objects and boxes are allowed, since published wordings contain them.

    Raises:
        ModelError: naming the token.
    """
    added = getattr(processor.tokenizer, "added_tokens_decoder", {}).values()
    special = {str(token) for token in added if getattr(token, "special", False)}
    special |= {token for name in ("image_token", "video_token") if isinstance(token := getattr(processor, name, None), str)}
    for prompt in prompts:
        if any("\ud800" <= letter <= "\udfff" for letter in prompt):
            raise ModelError(f"the prompt {prompt[:80]!a} has half a surrogate pair, which is not text", "write the character as UTF-8")
        found = [token for token in special - _PUBLISHED if token in prompt]
        if found:
            token = max(found, key=len)
            kind = "image placeholder" if token == getattr(processor, "image_token", None) else "special token"
            raise ModelError(
                f"the prompt {prompt[:80]!r} holds the {kind} {token!r}",
                f"take it out, or write it otherwise, such as {' '.join(token)!r}: the chat template puts the images in itself",
            )


def chat_text(processor: Any, prompt: str, n_images: int = 1) -> str:
    """Wrap a prompt and its images in the checkpoint's chat template, assistant prefix included.

    Raises:
        ModelError: the checkpoint has no chat template.
    """
    if not getattr(processor, "chat_template", None):
        raise ModelError(
            "the checkpoint has no chat template", "add its chat_template.jinja to the checkpoint's directory, or use the -hf twin"
        )
    content = [*({"type": "image"} for _ in range(n_images)), {"type": "text", "text": prompt}]
    text: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return text
