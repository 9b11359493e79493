"""Readings: descriptions of what is to be recorded for a method while a stock model runs. A reading is data; the engine records it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal

from biaskit.errors import BiaskitError

What = Literal["attention", "logits", "keys", "hidden", "rotations", "groups"]
At = Literal["decoder", "tower", "projector"]
Queries = Literal["last", "cls", "text", "visual", "mean", "question", "null"]
Heads = Literal["mean", "max", "sum", "each"]
Tokens = Literal["visual", "text"]

_QUERIES = {"decoder": ("last", "text", "visual", "mean", "question", "null"), "tower": ("cls", "mean")}


@dataclass(frozen=True)
class Reading:
    """One quantity of one layer, of every visual token of a sample. Hashable; equal readings are recorded once.

    Attributes:
        what: attention (softmax over all keys of the layer), logits (what goes into the softmax: scaled, soft-capped), keys (as the layer
            compares them with its queries, after rotary embedding), hidden (the output of the layer), rotations (of the decoder alone: the
            mean cosine and sine of the angles by which rotary embedding rotates a token, over its frequencies and axes), or groups (of the
            tower only: the index within its tile of the merged token that a patch is in, for methods that set `merges`).
        at: decoder (the language model), tower (the vision encoder), or projector (its output, one row a visual token; `hidden` alone).
        layer: of the decoder, relative to the layer K at which tokens are dropped: −1 is the layer that ran last, 0 the one about to run
            (everything but hidden). Of the tower absolute, and negative from the end: −2 is the second to last block.
        queries: of attention and logits. last: the last prompt token. text, visual, mean: the mean over the text tokens, the visual tokens,
            or both (logits: over those that may attend to the key). question: the mean over the text after the last visual token; null:
            the first token of it, which attends to the images but not to the question. In the tower cls: the CLS token; mean: the mean
            over every row of the tile or, where a block attends within windows, of the window.
        heads: how the heads are joined, before the queries are averaged: mean, max, sum, or each (not joined). Hidden states have none.
        tokens: visual (values at the N visual tokens), or, for decoder and projector, text (at the t text tokens of the prompt).

    Shapes for n tokens (N or t): attention and logits [n], or [heads, n] with heads="each"; keys [n, head_dim], or
    [key heads, n, head_dim]; hidden [n, d]; rotations [n, 2]. float32, but hidden states, which are in the model's dtype.

    Raises:
        BiaskitError: a reading that does not exist, such as the last prompt token of the tower.

    Example:
        >>> Reading("attention") == ATTENTION
        True
        >>> str(Reading("attention", "tower", layer=-2, queries="cls"))
        'attention[tower, layer=-2, queries=cls]'
        >>> Reading("attention", "tower", layer=-2)
        Traceback (most recent call last):
        biaskit.errors.BiaskitError: attention of the tower has no queries='last'
    """

    what: What
    at: At = "decoder"
    layer: int = -1
    queries: Queries = "last"
    heads: Heads = "mean"
    tokens: Tokens = "visual"

    def __post_init__(self) -> None:
        """Check that the combination exists."""
        for name, allowed in (("what", What), ("at", At), ("queries", Queries), ("heads", Heads), ("tokens", Tokens)):
            value, known = getattr(self, name), allowed.__args__  # type: ignore[attr-defined]
            if value not in known:
                raise BiaskitError(f"a reading with {name}={value!r}", f"{name} is one of {', '.join(known)}")
        if self.rows and self.queries not in _QUERIES.get(self.at, ()):
            if self.at == "projector":
                raise BiaskitError(f"the projector has no {self.what}", "only its output can be read: Reading('hidden', 'projector')")
            known = _QUERIES[self.at]
            raise BiaskitError(f"{self.what} of the {self.at} has no queries={self.queries!r}", f"use one of {', '.join(known)}")
        if not self.rows and self.queries != "last":
            raise BiaskitError(f"{self.what} with queries={self.queries!r}", "only attention and logits have queries; leave it out")
        if self.what == "hidden" and self.heads != "mean":
            raise BiaskitError(f"hidden states with heads={self.heads!r}", "hidden states have no heads; leave it out")
        if self.what == "groups" and (self.at, self.layer, self.heads) != ("tower", -1, "mean"):
            raise BiaskitError(f"groups of the {self.at}", "patches are merged in the vision tower alone: Reading('groups', 'tower')")
        if self.what == "rotations" and (self.at, self.layer, self.heads) != ("decoder", -1, "mean"):
            raise BiaskitError(f"rotations of the {self.at}, layer {self.layer}", "all layers share them: Reading('rotations')")
        if self.at == "projector" and (self.what != "hidden" or self.layer != -1):
            raise BiaskitError(
                f"{self.what} of the projector, layer {self.layer}", "only its output can be read: Reading('hidden', 'projector')"
            )
        if self.at == "tower" and self.tokens != "visual":
            raise BiaskitError("text tokens of the vision tower", "the tower sees the image only; leave tokens out")
        if self.at == "decoder" and self.layer > (-1 if self.what == "hidden" else 0):
            raise BiaskitError(
                f"{self.what} of decoder layer K + {self.layer}, which has not run when tokens are dropped",
                "use layer=-1, or layer=0 (attention, logits and keys of the layer about to run)",
            )

    @property
    def rows(self) -> bool:
        """True for attention and logits, which are computed from rows of an attention map."""
        return self.what in ("attention", "logits")

    @property
    def axis(self) -> int:
        """The token dimension of its tensor: 1 if heads come first, else 0."""
        return int(self.heads == "each")

    def exists(self, layer: int) -> bool:
        """True if it can be read when tokens are dropped before decoder layer `layer`: before layer 0 nothing of the decoder has run."""
        return self.at != "decoder" or self.what == "rotations" or layer + self.layer >= 0

    def __str__(self) -> str:
        """Return the name of a reading that has one, else what differs from the defaults."""
        name = NAMES.get(self)
        if name is not None:
            return name
        words = [f"{f.name}={getattr(self, f.name)}" for f in fields(self)[2:] if getattr(self, f.name) != f.default]
        return f"{self.what}[{', '.join([self.at, *words])}]"


ATTENTION = Reading("attention")
"""[N] last prompt token → visual tokens at layer K − 1, mean over heads."""
HIDDEN = Reading("hidden")
"""[N, d] output of layer K − 1, which is the input of layer K."""
TEXT_HIDDEN = Reading("hidden", tokens="text")
"""[t, d] the same at the text tokens."""
KEYS = Reading("keys", heads="each")
"""[key heads, N, head_dim] keys of layer K − 1, after rotary embedding."""
TEXT_KEYS = Reading("keys", heads="each", tokens="text")
"""[key heads, t, head_dim] the same at the text tokens."""
EMBEDS = Reading("hidden", "projector")
"""[N, d] projector output: the visual rows of the input embeddings; also before the language model (K = 0)."""
TEXT_EMBEDS = Reading("hidden", "projector", tokens="text")
"""[t, d] input embeddings of the text tokens; also before the language model (K = 0)."""

MERGED = Reading("groups", "tower")
"""[P] the merged token within its tile that each patch of the vision tower is in, 0, 1, …"""

NAMES: dict[Reading, str] = {
    ATTENTION: "attention",
    HIDDEN: "hidden",
    TEXT_HIDDEN: "text_hidden",
    KEYS: "keys",
    TEXT_KEYS: "text_keys",
    EMBEDS: "embeds",
    TEXT_EMBEDS: "text_embeds",
}


def check_readings(needs: Iterable[Reading], name: str) -> frozenset[Reading]:
    """Return a method's `needs` as a frozenset, after checking them.

    Raises:
        BiaskitError: an element is not a Reading.

    Example:
        >>> check_readings({"attention"}, "mine")
        Traceback (most recent call last):
        biaskit.errors.BiaskitError: mine needs 'attention', which is not a Reading
    """
    found: frozenset[Reading] = frozenset(needs)
    for need in found:
        if not isinstance(need, Reading):
            names = ", ".join(known.upper() for known in NAMES.values())
            raise BiaskitError(f"{name} needs {need!r}, which is not a Reading", f"biaskit.signals has {names}, and Reading for all others")
    return found
