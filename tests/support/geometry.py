"""Where the visual tokens of a model really look: a tower that hands on the mean colour of a token's own pixels, and a gradient."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

NEWLINE = 77.0


def gradient(cols, rows):
    """Red rises from left to right and green from top to bottom; blue is full, and nothing but padding is without it."""
    pixels = np.zeros((rows, cols, 3))
    pixels[..., 0] = (np.arange(cols) + 0.5)[None] / cols * 255
    pixels[..., 1] = (np.arange(rows) + 0.5)[:, None] / rows * 255
    pixels[..., 2] = 255
    return Image.fromarray(pixels.round().astype(np.uint8))


def seen(found, layout, image_processor):
    """(x, y) of every visual token, as fractions of the gradient image, from what `found` [N, 3+] says of its colours.

    Only ratios of colours count, so that a scale that a norm puts on a token does not matter: blue is known.
    """
    mean, std = (torch.tensor(value, dtype=torch.float64) for value in (image_processor.image_mean, image_processor.image_std))
    blue = (1 - mean[2]) / std[2]
    colours = found[:, :2].double() / found[:, 2:3].double() * blue * std[:2] + mean[:2]
    return colours[:, 0].numpy(), colours[:, 1].numpy()


def features(model, inputs):
    """[N, D] of the visual tokens, from the model's own encoder."""
    given = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask", "mm_token_type_ids")}
    with torch.inference_mode():
        found = model.base_model.get_image_features(**given).pooler_output
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in found])


def distances(found, layout, image_processor):
    """Per plane that shows the image: how far, in cells, its inner tokens look from where the layout says, at most."""
    x, y = seen(found, layout, image_processor)
    worst = {}
    for number, plane in enumerate(layout.planes):
        if plane.box is None:
            continue
        mine = layout.plane == number
        ys, xs = plane.centres()
        wanted_x, wanted_y = xs[layout.col[mine]], ys[layout.row[mine]]
        unit = (plane.box[2] - plane.box[0]) / plane.cols, (plane.box[3] - plane.box[1]) / plane.rows
        inner = (abs(wanted_x - 0.5) + unit[0] < 0.5) & (abs(wanted_y - 0.5) + unit[1] < 0.5)  # resampling clamps at the image's edge
        assert inner.any()
        off = np.maximum(abs(x[mine] - wanted_x) / unit[0], abs(y[mine] - wanted_y) / unit[1])[inner]
        worst[plane.name] = max(worst.get(plane.name, 0.0), float(off.max()))
    return worst


@torch.no_grad()
def transparent(model):
    """Make a model's tower hand on the mean colour of each visual token's own pixels, in its first three channels; negated in the next."""
    base = model.base_model
    tower = next(getattr(base, name) for name in ("visual", "vision_tower", "vision_model") if hasattr(base, name))
    for name, module in tower.named_modules():
        last = name.split(".")[-1]
        if isinstance(module, torch.nn.Linear) and "merger" not in name and last in _OUT:
            module.weight.zero_()
            if module.bias is not None:
                module.bias.zero_()
        if ("norm" in name.lower() or last == "ln_q") and getattr(module, "weight", None) is not None and module.weight.ndim == 1:
            module.weight.fill_(1.0)
            if getattr(module, "bias", None) is not None:
                module.bias.zero_()
        if isinstance(module, torch.nn.Embedding):
            module.weight.zero_()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            _colours(module)
    for name, weight in tower.named_parameters():
        if "position_embeddings" in name or "pos_embed" in name:
            weight.zero_()
    _through(base)
    if hasattr(base, "image_newline"):
        base.image_newline.fill_(NEWLINE)


_OUT = {"out_proj", "o_proj", "fc2", "proj", "down_proj", "projection_layer", "linear_fc2"}


def _colours(convolution):
    """The mean of each channel, and its negative, so that means over channels are zero."""
    weight = convolution.weight
    weight.zero_()
    if convolution.bias is not None:
        convolution.bias.zero_()
    for channel in range(3):
        weight[channel, channel], weight[3 + channel, channel] = 1 / weight[0, 0].numel(), -1 / weight[0, 0].numel()


def _through(base):
    """Hand the first six channels through the projector: their mean over the patches that it joins."""
    if hasattr(base, "multi_modal_projector"):
        projector = base.multi_modal_projector
        groups = 1
        if hasattr(projector, "layer_norm"):
            projector.layer_norm.weight.fill_(1.0)
            projector.layer_norm.bias.zero_()
            groups = 4
        _pass(projector.linear_1, projector.linear_2, groups)
    else:
        merger = base.visual.merger
        _pass(*((merger.mlp[0], merger.mlp[2]) if hasattr(merger, "mlp") else (merger.linear_fc1, merger.linear_fc2)), 4)


def _pass(one, other, groups):
    """Lift the six channels far above zero, where the activation between the two layers is the identity, and let them down again."""
    one.weight.zero_()
    one.bias.fill_(10.0)
    width = one.in_features // groups
    for channel in range(6):
        for group in range(groups):
            one.weight[channel, group * width + channel] = 1 / groups
    other.weight.zero_()
    for channel in range(6):
        other.weight[channel, channel] = 1.0
    if other.bias is not None:
        other.bias.zero_()
        other.bias[:6] = -10.0
