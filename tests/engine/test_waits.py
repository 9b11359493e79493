"""How often a decision waits for a device, counted on the CPU: tensors of a device are marked, and whatever is done with them is watched.

A look at their numbers is a wait, and so is a copy from ordinary memory. A host tensor among them would be an error on a GPU.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import batch
from reference import Top, model_of
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map
from transformers.cache_utils import Cache

from biaskit import device as transfer
from biaskit import get_pruner, prune
from biaskit.engine.deepstack import DeepStack
from biaskit.engine.dropper import TokenDropper, _Layer
from biaskit.engine.recorder import Recorder
from biaskit.prior.value import flat_prior
from biaskit.pruners.readings import ATTENTION

pytestmark = pytest.mark.usefixtures("interpreter")
DEVICE = torch.device("cpu", 1)
LOOKS = {"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__", "nonzero", "masked_select"}
LOOKS |= {"unique", "equal", "allclose", "__contains__", "repeat_interleave"}


class OnDevice(torch.Tensor):
    """A tensor that is taken for one on a device."""


def is_cache(x):
    """A cache is handed on as it is; as a tree it would be rebuilt."""
    return isinstance(x, Cache)


def sent(x):
    return tree_map(lambda part: part.as_subclass(OnDevice) if type(part) is torch.Tensor else part, x, is_leaf=is_cache)


def back(x):
    return tree_map(lambda part: part.as_subclass(torch.Tensor) if isinstance(part, OnDevice) else part, x, is_leaf=is_cache)


class Watch(TorchFunctionMode):
    """Notes waits and mistakes; counts what is fetched."""

    def __init__(self):
        super().__init__()
        self.notes, self.fetched, self.quiet = [], 0, False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        parts = [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, torch.Tensor)]
        mine, hosts = [p for p in parts if isinstance(p, OnDevice)], [p for p in parts if not isinstance(p, OnDevice)]
        if self.quiet:
            return func(*args, **kwargs)
        if mine and name == "__get__" and getattr(func, "__self__", None) is torch.Tensor.device:
            return DEVICE
        if mine and (name in LOOKS or (name == "where" and len(parts) == 1)):
            self.notes.append(name)
        if (
            mine
            and name in ("__getitem__", "__setitem__")
            and any(
                isinstance(part, np.ndarray | list) or (isinstance(part, torch.Tensor) and part.dtype == torch.bool)
                for part in (args[1] if isinstance(args[1], tuple) else (args[1],))
            )
        ):
            self.notes.append(f"{name} by a mask or a list")
        if mine and any(part.ndim for part in hosts):
            self.notes.append(f"{name} with a host tensor")
        to_device = kwargs.get("device") == DEVICE or DEVICE in args[1:]
        if name == "to" and to_device and not mine:
            self.notes.append("copy from ordinary memory")
        if (
            name == "to"
            and mine
            and any(part == torch.device("cpu") for part in (*args, *kwargs.values()) if isinstance(part, torch.device))
        ):
            self.notes.append("copy to the host")
        found = func(*args, **kwargs)
        return sent(found) if to_device else found


@pytest.fixture
def watch(monkeypatch, as_on_a_device):
    """A watch over what the hooks do; the model itself runs as ever."""
    watch = Watch()

    def quietly(function):
        def called(*args, **kwargs):
            before, watch.quiet = watch.quiet, True
            try:
                return function(*args, **kwargs)
            finally:
                watch.quiet = before

        return called

    def read(fetch, original=transfer.Fetch.read):
        watch.fetched += any(isinstance(part, OnDevice) for part in fetch._found)
        return quietly(original)(fetch)

    def enter(dropper, module, args, kwargs, original=TokenDropper._enter):
        encoded = {"mm_encoder_outputs"}  # known again as the very object that the encoder gave
        dropper.inputs = {name: value if name in encoded else sent(value) for name, value in dropper.inputs.items()}
        with watch:
            found = original(dropper, module, args, sent(kwargs))
        dropper.images.given = back(dict(dropper.images.given))
        return back(found)

    def add(deepstack, number, narrowing, module, args, hidden, original=DeepStack._add):
        with watch:
            found = original(deepstack, number, narrowing, module, args, sent(hidden))
        return back(found)

    def layer(hook, module, args, kwargs, original=_Layer.__call__):
        with watch:
            found = original(hook, module, sent(args), sent(kwargs))
        return None if found is None else back(found)

    def called(recorder, number, call, original=Recorder._called):
        marked = {name: sent(getattr(call, name)) for name in ("query", "key", "mask")}
        with watch:
            original(recorder, number, replace(call, **marked))

    import triton.runtime.interpreter as triton_interpreter

    monkeypatch.setattr(transfer, "_sent", lambda source, device: sent(source))
    monkeypatch.setattr(transfer.Fetch, "__init__", quietly(transfer.Fetch.__init__))
    monkeypatch.setattr(transfer.Fetch, "read", read)
    launch = triton_interpreter.GridExecutor.__call__
    monkeypatch.setattr(
        triton_interpreter.GridExecutor, "__call__", lambda self, *args, **kwargs: quietly(launch)(self, *back(args), **kwargs)
    )
    monkeypatch.setattr(TokenDropper, "_enter", enter)
    monkeypatch.setattr(_Layer, "__call__", layer)
    monkeypatch.setattr(DeepStack, "_add", add)
    monkeypatch.setattr(Recorder, "_called", called)
    return watch


def run(model, inputs, pruner, prior):
    with torch.no_grad(), prune(model, pruner, prior=prior, say=lambda line: None) as pruning:
        logits = model(**inputs, use_cache=True, logits_to_keep=1).logits
    return [sample.indices.tolist() for sample in pruning.samples], logits


METHODS = {
    "d2pruner": {"alpha": 0.5, "theta": 0.6},
    "fastv": {},
    "idpruner": {"layer": 2, "importance": "attention"},
    "divprune": {},
}


@pytest.mark.parametrize("case", ["single", "padded"])
@pytest.mark.parametrize("method", METHODS)
def test_a_decision_waits_once(method, case, watch, monkeypatch):
    """Once for the tokens and sizes, once to see whether samples repeat each other, and once for the answers."""
    name = "llava-next" if method == "fastv" else "qwen2.5-vl"  # the interpreter is slow: few tokens
    _waits_once(name, get_pruner(method, budget=6, **METHODS[method]), case, watch, monkeypatch)


def test_a_decision_waits_once_where_features_are_added_after_it(watch, monkeypatch):
    """DeepStack: the rows that get features are known on the host, before the cut and after it."""
    added = []

    def seen(deepstack, *args, original=DeepStack._add):
        added.append(original(deepstack, *args))
        return added[-1]

    monkeypatch.setattr(DeepStack, "_add", seen)
    _waits_once("qwen3-vl", get_pruner("fastv", budget=6, layer=1), "padded", watch, monkeypatch)
    assert sum(found is not None for found in added) == 3


def _waits_once(name, pruner, case, watch, monkeypatch):
    waits = 3 if case == "padded" else 2
    model, _, family = model_of(name, dtype=torch.float32)
    inputs = batch(name, case)
    prior = (
        flat_prior(family.canonical(model.config), [pruner.layer - 1], {"model_type": model.config.model_type}) if pruner.debiases else None
    )
    kept, logits = run(model, inputs, pruner, prior)
    assert watch.notes == []
    assert watch.fetched == waits
    monkeypatch.undo()
    expected, same = run(model, inputs, pruner, prior)
    assert kept == expected
    assert torch.allclose(logits, same, atol=1e-5)


@pytest.mark.parametrize("name", ["llava-next", "qwen3-vl"])
def test_a_decode_step_waits_for_a_look_at_its_mask_alone(name, watch):
    """At the first narrowed layer: whether a token after the prompt is padding."""
    model, inputs = model_of(name, dtype=torch.float32)[0], batch(name, "padded")
    with prune(model, get_pruner("fastv", budget=6), say=lambda line: None):
        model.generate(**inputs, max_new_tokens=1, min_new_tokens=1, do_sample=False)
        of_prefill = watch.fetched
        model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert watch.notes == []
    assert watch.fetched - 2 * of_prefill == 2


def test_the_watch_sees_a_wait(watch):
    class Looks(Top):
        def select(self, signals, budget):
            assert bool((signals[ATTENTION] >= 0).all())
            return super().select(signals, budget)

    run(model_of("llava-next", dtype=torch.float32)[0], batch("llava-next", "single"), Looks(budget=6), None)
    assert watch.notes == ["__bool__"]
    with watch:
        x = sent(torch.arange(4.0))
        x[x > 1], x + torch.ones(4), x.to(torch.device("cpu")), torch.ones(4).to(x.device)
    assert watch.notes[1:] == ["__getitem__ by a mask or a list", "add with a host tensor", "copy to the host", "copy from ordinary memory"]
