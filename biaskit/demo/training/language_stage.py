"""Stage 2: projector and language model learn to answer, on the frozen tower's features.

Trained on answers alone, the model learns to read the box of *some* thing long before it finds the thing of the question. Three auxiliary
losses teach it to find that one; the second and the third fade to 0 before half of the steps are done:

- attention of the last prompt token in layer 2, mean of the heads: a token of a thing that shares a named colour or shape with the
  phrase should get LEAD times the attention of a token of any other thing, and never more. The upper bound applies throughout, so that
  the layer depends on the question while most of its attention depends on other things;
- three heads of layer 4 are trained to attend to the one thing that is meant;
- projected visual tokens are pulled towards the word embeddings of what they show, as in LLaVA's first stage, and a linear reader that is
  discarded afterwards must find the thing's box in them. Where the tower has no absolute positions, the reader reads the tokens at the
  input of a later layer instead, so that the layers before it learn the positions; there it must also read size, colour and shape, which
  the positions would otherwise overwrite.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from biaskit.demo.training.architecture import HEADS
from biaskit.demo.training.checkpoint import keep, restore
from biaskit.demo.training.muon import Muon
from biaskit.demo.training.packing import IGNORE, SLOT, Packed, pack
from biaskit.demo.training.pictures import Pictures, Say
from biaskit.demo.training.shared_prefix import SharedPrefix
from biaskit.images.scenes.draw import COLOUR_NAMES, EDGE, SHAPES, SIZES
from biaskit.images.scenes.questions import ask
from biaskit.images.scenes.vocabulary import BINS, FIRST_LOCATION, ID

IMAGES, QUESTIONS = 8, 24
"""Images a step, and questions about each."""
COARSE, FINE = 2, 4
"""0-based layers of the scaffold."""
WATCHED = {COARSE: HEADS, FINE: 3}
"""How many of their heads are trained."""
LEAD = 2.0
SCAFFOLD_END = 0.45
"""The share of the steps over which scaffold and alignment fade linearly to 0."""
HOLD = 0.45
"""The share of the steps at full learning rate; a cosine follows."""
MUON_RATE, ADAM_RATE = 0.016, 2e-3


def schedule(step: int, steps: int) -> tuple[float, float]:
    """Return the factor on the learning rate, and the weight of the auxiliary losses."""
    done = step / steps
    rate = 1.0 if done < HOLD else 0.5 * (1 + math.cos(math.pi * (done - HOLD) / (1 - HOLD)))
    return min(1.0, (step + 1) / 100) * max(0.02, rate), max(0.0, 1 - done / SCAFFOLD_END)


class LanguageStage:
    """Model, optimisers and curve of stage 2; its state is kept in `work` and resumed.

    Args:
        model: the stock model, on `device`. pictures: the training scenes. features: [n, 144, 128] float16 of the frozen tower.
        work: directory of the state. steps: in all. seed: of questions and order. scaffold: whether there are losses on the attention.
    """

    def __init__(
        self,
        model: Any,
        pictures: Pictures,
        features: NDArray[np.float16],
        work: Path,
        steps: int,
        seed: int,
        device: str,
        *,
        scaffold: bool = True,
    ) -> None:
        self.model, self.pictures, self.features, self.steps, self.seed, self.device = model, pictures, features, steps, seed, device
        self.watched = WATCHED if scaffold else {}
        self.run = SharedPrefix(model, SLOT, device)
        text = model.model.language_model
        self.reads_at = self.run.architecture.reads_at
        projector = self.run.architecture.projector(model)
        self.read = [4 * BINS, *((len(SIZES), len(COLOUR_NAMES), len(SHAPES)) if self.reads_at else ())]
        self.reader = nn.Linear(text.config.hidden_size, sum(self.read)).to(device)
        named = [*text.named_parameters(), *projector.named_parameters()]
        matrices = [weight for name, weight in named if weight.ndim == 2 and "embed" not in name]
        chosen = {id(weight) for weight in matrices}
        modules = (text, projector, model.lm_head, self.reader)
        self.weights = [weight for module in modules for weight in module.parameters()]
        others = [weight for weight in self.weights if id(weight) not in chosen]
        self.optimisers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=MUON_RATE), torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.01)
        ]  # fmt: skip
        self.parts = {"text": text, "projector": projector, "head": model.lm_head, "reader": self.reader}
        self.parts |= {"muon": self.optimisers[0], "adam": self.optimisers[1]}
        self.state: dict[str, Any] = {"step": 0, "curve": [], "running": {}}
        self.path = work / "language.pt"
        bins = torch.arange(BINS, device=device).float()
        self.soft = torch.softmax(-(((bins[:, None] - bins) / 0.8) ** 2) / 2, -1)
        names = (SIZES, COLOUR_NAMES, SHAPES)
        self.words = [torch.tensor([ID[name] for name in group], device=device) for group in names]

    def restore(self) -> None:
        """Load the saved state, if there is one."""
        self.state = restore(self.path, self.parts, self.device) or self.state

    def keep(self) -> None:
        """Write the state; a kill in the middle leaves the old one."""
        keep(self.path, self.state, self.parts)

    def step(self, number: int) -> dict[str, float]:
        """Do one step; return what it measured."""
        rate, help_weight = schedule(number, self.steps)
        for optimiser, base in zip(self.optimisers, (MUON_RATE, ADAM_RATE), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * rate
        rng = np.random.default_rng([self.seed, 2, number])
        index = np.sort(rng.integers(0, len(self.pictures), IMAGES))
        things = [self.pictures.things(int(i)) for i in index]
        packed = pack([[ask(rng, mine) for _ in range(QUESTIONS)] for mine in things], self.pictures.owner[index])
        features = torch.from_numpy(self.features[index]).to(self.device).float()
        fine = help_weight or number % 20 == 0
        watch = {layer: heads for layer, heads in self.watched.items() if layer == COARSE or fine}
        loss, scores, visual = self._loss(features, packed, watch, help_weight)
        if help_weight:
            loss = loss + 0.3 * help_weight * self._alignment(features, index, visual)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        return {"loss": loss.item(), **scores}

    def _loss(
        self, features: Tensor, packed: Packed, watch: dict[int, int], help_weight: float
    ) -> tuple[Tensor, dict[str, float], Tensor | None]:
        """Return the loss of the answers and of the scaffold, what was measured, and visual tokens of a later layer for the reader."""
        rows = tuple(part.to(self.device) for part in packed.asked)
        with torch.autocast(self.device.split(":")[0], torch.bfloat16):
            states, watched = self.run(features, packed.ids.to(self.device), watch, rows, states_at=self.reads_at or None)  # type: ignore[arg-type]
            seen = watched.attention
            labels = packed.labels.to(self.device)
            asked = labels != IGNORE
            logits = self.model.lm_head(states[asked])
        truth, weight = labels[asked], packed.weights.to(self.device)[asked]
        logs = logits.float().log_softmax(-1)
        each = -logs.gather(1, truth[:, None])[:, 0]
        places = truth >= FIRST_LOCATION  # neighbouring bins are nearly right
        near = logs[places][:, FIRST_LOCATION : FIRST_LOCATION + BINS]
        each = each.masked_scatter(places, -(self.soft[truth[places] - FIRST_LOCATION] * near).sum(-1))
        loss = (weight * each).sum() / weight.sum()
        begins = torch.arange(SLOT, device=self.device) == packed.lengths.to(self.device)[..., None] - 1
        scores = self._scores(logs.detach().argmax(-1), truth, begins[asked])
        if COARSE in seen:
            lead = _lead(seen[COARSE], packed.related.to(self.device), packed.unrelated.to(self.device))
            scores["lead"] = lead.mean().exp().item()
            missing = math.log(LEAD) - lead
            loss = loss + 0.2 * (help_weight * missing.relu() + (-missing).relu()).mean()
        if FINE in seen:
            useful = packed.target.any(-1).to(self.device)
            mass = (seen[FINE] * packed.target.to(self.device)[:, None]).sum(-1)[useful]
            scores["target_mass"] = mass.mean().item()
            loss = loss - 0.4 * help_weight * (mass + 1e-4).log().mean()
        return loss, scores, watched.visual

    @staticmethod
    def _scores(best: Tensor, truth: Tensor, begins: Tensor) -> dict[str, float]:
        """Return shares of correct first answers: x1 within one bin, presence, attribute (and the first word of descriptions)."""
        place = (truth >= FIRST_LOCATION) & begins
        yes_no = (truth == ID["yes"]) | (truth == ID["no"])
        named = begins & ~place & ~yes_no
        return {
            "x1": ((best - truth).abs() <= 1)[place].float().mean().item(),
            "presence": (best == truth)[yes_no].float().mean().item(),
            "attribute": (best == truth)[named].float().mean().item(),
        }

    def _alignment(self, features: Tensor, index: NDArray[np.int64], later: Tensor | None) -> Tensor:
        """Return the loss of the projected tokens against the words for what they show, and of the reader (on `later` [B, 144, hidden])."""
        which = torch.from_numpy(self.pictures.owner[index].astype(np.int64))
        covered = which >= 0
        facts = torch.from_numpy(self.pictures.facts[index])
        mine = torch.gather(facts, 1, which.clamp(min=0)[..., None].expand(-1, -1, 7))[covered].to(self.device)
        visual = functional.normalize(self.run.project(features[covered.to(self.device)]).float(), dim=-1)
        table = functional.normalize(self.run.text.embed_tokens.weight, dim=-1)
        losses = [functional.cross_entropy(10 * visual @ table[words].T, mine[:, column].long()) for column, words in enumerate(self.words)]
        if later is not None:
            visual = functional.normalize(later[covered.to(self.device)], dim=-1)
        box, *names = torch.split(self.reader(visual * visual.shape[-1] ** 0.5), self.read, -1)
        losses += [functional.cross_entropy(logits, mine[:, column].long()) for column, logits in enumerate(names)]
        bins = (mine[:, 3:] * (BINS / EDGE)).long().clamp(0, BINS - 1)
        read = box.view(-1, 4, BINS).log_softmax(-1)
        found: Tensor = torch.stack(losses).sum() - (self.soft[bins] * read).sum(-1).mean()
        return found

    def train(self, say: Say, check: Any = None, every: int = 50) -> list[dict[str, float]]:
        """Do the remaining steps; `check(run)` adds held-out numbers to every fifth point of the curve. Returns the curve."""
        self.restore()
        began, first, running = time.monotonic(), int(self.state["step"]), self.state["running"]
        for number in range(first, self.steps):
            for name, value in self.step(number).items():
                running[name] = value if name not in running else 0.96 * running[name] + 0.04 * value
            done = self.state["step"] = number + 1
            if done % every and done != self.steps:
                continue
            point: dict[str, float] = {"step": done, "questions": done * IMAGES * QUESTIONS, **{k: round(v, 4) for k, v in running.items()}}
            if check is not None and (done % (5 * every) == 0 or done == self.steps):
                point |= check(self.run)
            self.state["curve"].append(point)
            speed = (done - first) / (time.monotonic() - began)
            told = "  ".join(f"{name} {value:.3f}" for name, value in point.items() if name not in ("step", "questions"))
            left = (self.steps - done) / speed
            say(f"language {done}/{self.steps}  {speed * IMAGES * QUESTIONS:.0f} questions/s  {left:.0f} s left  {told}")
            if done % (2 * every) == 0 or done == self.steps:
                self.keep()
        return list(self.state["curve"])


def _lead(attention: Tensor, related: Tensor, unrelated: Tensor) -> Tensor:
    """Return the log of the ratio of attention of a related thing's token to another thing's, in rows that have both.

    Args:
        attention: [r, heads, 144]. related, unrelated: [r, 144] bool.
    """
    both = related.any(-1) & unrelated.any(-1)
    row = attention[both].mean(1) + 1e-5
    first, second = ((row * mask[both]).sum(-1) / mask[both].sum(-1) for mask in (related, unrelated))
    return first.log() - second.log()
