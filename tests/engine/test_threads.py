"""One model, several threads: every answer is the one that the call gets alone; nothing global is left behind, whatever ends first."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch
from reference import model_of, picture
from samples import signals
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from biaskit import get_pruner, prune, record_attention
from biaskit.engine.calls import watch_attention
from biaskit.engine.image_encoder import encode_once
from biaskit.engine.per_thread import AtWork
from biaskit.errors import BiaskitError, ModelError
from biaskit.families.checkpoints.tiny import tiny_model
from biaskit.pruners.fastv import FastV
from biaskit.select.keep import Keep

FAMILIES = ["llava-1.5", "qwen2.5-vl", "qwen3-vl"]


def opened(name):
    return model_of(name, dtype=torch.float32)


def jobs_of(name, count=3):
    """Prompts whose images and texts have different sizes."""
    model, processor, family = opened(name)
    made = [([[picture(120 + 30 * i, 120, i)]], ["hello" + " x" * i]) for i in range(count)]
    return [family.prepare(processor, model.config, images, prompts).inputs for images, prompts in made]


def answer(model, inputs, **options):
    return model.generate(**inputs, max_new_tokens=5, do_sample=False, disable_compile=True, **options)


def together(function, jobs):
    """Call a function for each job, in a thread each, all beginning at once."""
    gate = threading.Barrier(len(jobs))

    def work(job):
        gate.wait()
        return function(job)

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(work, jobs))


@pytest.mark.parametrize("method", ["fastv", "visionzip"])
@pytest.mark.parametrize("name", FAMILIES)
def test_threads_of_one_block_answer_as_alone(name, method):
    model, jobs, pruner = opened(name)[0], jobs_of(name), get_pruner(method, retention=0.1)
    if name != "llava-1.5" and method == "visionzip":
        pruner = get_pruner("fastv", layer=1, retention=0.2)
    alone = []
    for job in jobs:
        with prune(model, pruner) as one:
            alone.append(answer(model, job))
    with prune(model, pruner) as pruning:
        for _ in range(4):
            for found, expected in zip(together(lambda job: answer(model, job), jobs), alone, strict=True):
                assert torch.equal(found, expected)
    assert pruning.prefills == 12
    assert len(pruning.samples) == 1 and pruning.samples[0].n_visual > 0
    assert one.prefills == 1


def test_threads_may_share_what_the_encoder_found():
    model, jobs, pruner = opened("llava-1.5")[0], jobs_of("llava-1.5"), get_pruner("visionzip", retention=0.1)
    with prune(model, pruner):
        alone = [answer(model, job) for job in jobs]
    with encode_once(model, pruner.needs), prune(model, pruner):
        for _ in range(2):
            assert all(map(torch.equal, together(lambda job: answer(model, job), jobs), alone))


@pytest.mark.parametrize("name", FAMILIES)
def test_beams_leave_what_the_encoder_found_as_it_was(name):
    model, (job,), pruner = opened(name)[0], jobs_of(name, 1), get_pruner("fastv", retention=0.1)
    with prune(model, pruner):
        expected = answer(model, job, num_beams=2)
    with encode_once(model):
        for _ in range(2):
            with prune(model, pruner) as pruning:
                assert torch.equal(answer(model, job, num_beams=2), expected)
            assert len(pruning.samples) == 2


def test_one_seed_a_sample_needs_one_thread():
    model, (job, *_) = opened("llava-1.5")[0], jobs_of("llava-1.5", 1)
    with prune(model, get_pruner("random", retention=0.1, layer=1), seed=[1, 2]):
        answer(model, job)
        with pytest.raises(BiaskitError, match="several threads prefill, in any order"):
            together(lambda inputs: answer(model, inputs), [job])


def test_other_threads_are_not_recorded():
    """Rows belong to the thread that opened the block, and its early end of a pass is no business of another's."""
    model, jobs = opened("llava-1.5")[0], jobs_of("llava-1.5", 2)
    expected = answer(model, jobs[0])
    with record_attention(model, [1]) as alone:
        model(**jobs[1])
    with record_attention(model, [1], stop=True) as found:
        assert torch.equal(together(lambda job: answer(model, job), jobs[:1])[0], expected)
        assert not found
        model(**jobs[1])
    assert torch.equal(found[1], alone[1])


def two_models():
    first, processor, family = tiny_model("llava-1.5")
    second = tiny_model("llava-1.5", seed=1)[0]
    return first, second, family.prepare(processor, first.config, [[picture(200, 150)]], ["hello"]).inputs


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_blocks_may_end_in_any_order(attention):
    first, second, inputs = two_models()
    for model in (first, second):
        model.set_attn_implementation(attention)
    local, pruner = dict(ALL_ATTENTION_FUNCTIONS._local_mapping), get_pruner("fastv", retention=0.1)
    with prune(second, pruner) as alone:
        expected = answer(second, inputs)
    a, b = ExitStack(), ExitStack()
    a.enter_context(prune(first, pruner))
    report = b.enter_context(prune(second, pruner))
    answer(first, inputs)
    a.close()
    assert torch.equal(answer(second, inputs), expected)
    assert report.samples[0].indices.tolist() == alone.samples[0].indices.tolist()
    with prune(first, pruner):  # the model is free again
        answer(first, inputs)
    b.close()
    assert dict(ALL_ATTENTION_FUNCTIONS._local_mapping) == local
    held = weakref.ref(first.get_decoder().layers[1])
    del first, model, a, b, report, alone
    gc.collect()
    assert held() is None


def test_an_encoder_has_its_own_method_again_in_any_order():
    model, (job,) = opened("llava-1.5")[0], jobs_of("llava-1.5", 1)
    own = sorted(vars(model.base_model))
    outer, inner = ExitStack(), ExitStack()
    outer.enter_context(encode_once(model))
    inner.enter_context(prune(model, get_pruner("fastv", retention=0.1)))
    outer.close()
    answer(model, job)
    inner.close()
    assert sorted(vars(model.base_model)) == own and "generate" not in vars(model)


def test_two_models_in_two_threads():
    first, second, inputs = two_models()
    pruner, local = get_pruner("fastv", retention=0.1), dict(ALL_ATTENTION_FUNCTIONS._local_mapping)

    def pruned(model):
        with prune(model, pruner) as pruning:
            return answer(model, inputs), pruning.samples[0].indices.tolist()

    expected = [pruned(first), pruned(second)]
    for _ in range(4):
        for (found, kept), (same, indices) in zip(together(pruned, [first, second]), expected, strict=True):
            assert torch.equal(found, same) and kept == indices
    assert dict(ALL_ATTENTION_FUNCTIONS._local_mapping) == local


def test_one_model_is_pruned_by_one_block_of_all_threads():
    model = opened("llava-1.5")[0]
    with prune(model, get_pruner("fastv", retention=0.1), say=[].append), pytest.raises(BiaskitError, match="being pruned already"):
        together(lambda pruner: prune(model, pruner).__enter__(), [get_pruner("fastv", retention=0.1)])


def test_a_function_registered_over_ours_stays():
    """Others may put an attention function into the registry while we watch, and keep it there."""
    local = dict(ALL_ATTENTION_FUNCTIONS._local_mapping)
    try:
        with watch_attention("sdpa", lambda *_: None):
            ours = ALL_ATTENTION_FUNCTIONS["sdpa"]
            ALL_ATTENTION_FUNCTIONS["sdpa"] = theirs = lambda *args, **kwargs: ours(*args, **kwargs)
            with watch_attention("sdpa", lambda *_: None):
                assert ALL_ATTENTION_FUNCTIONS["sdpa"] not in (ours, theirs)
            assert ALL_ATTENTION_FUNCTIONS["sdpa"] is theirs
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is theirs
    finally:
        ALL_ATTENTION_FUNCTIONS._local_mapping.clear()
        ALL_ATTENTION_FUNCTIONS._local_mapping.update(local)


class Slow:
    """Stops a generation after its first token until it is told to go on."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, input_ids, scores):
        self.begun.set()
        assert self.go.wait(20)
        return scores


def test_the_end_of_a_block_waits_for_threads_that_generate(monkeypatch):
    monkeypatch.setattr("biaskit.engine.per_thread._PATIENCE", 0.05)
    model, (job,) = opened("llava-1.5")[0], jobs_of("llava-1.5", 1)
    pruner, slow, said, found = get_pruner("fastv", retention=0.1), Slow(), [], []
    with prune(model, pruner):
        expected = answer(model, job)
    thread = threading.Thread(target=lambda: found.append(answer(model, job, logits_processor=[slow])), name="streaming")

    def say(line):
        said.append(line)
        slow.go.set()

    with prune(model, pruner, say=say):
        thread.start()
        assert slow.begun.wait(20)
    assert torch.equal(found[0], expected)
    assert said == ["the end of the pruned block waits for threads that still generate: streaming"]
    thread.join()


def test_an_error_in_a_block_stops_threads_that_generate():
    model, (job,) = opened("llava-1.5")[0], jobs_of("llava-1.5", 1)
    slow, found = Slow(), []

    def work():
        with pytest.raises(ModelError, match="ends while this thread runs the model"):
            answer(model, job, logits_processor=[slow])
        found.append(True)

    thread = threading.Thread(target=work)
    with pytest.raises(KeyboardInterrupt), prune(model, get_pruner("fastv", retention=0.1)):
        thread.start()
        assert slow.begun.wait(20)
        threading.Timer(0.2, slow.go.set).start()
        raise KeyboardInterrupt
    thread.join()
    assert found


def test_no_call_begins_while_a_block_ends():
    work = AtWork()
    work.close(print, failed=False)
    with pytest.raises(ModelError, match="ends while this thread runs the model"):
        work.begin()


@pytest.mark.parametrize("layer", [1, 2])
def test_a_copied_cache_goes_on_where_it_was(layer):
    """One image, many questions: each copy of the prefilled cache is another conversation."""
    model, (job,) = opened("llava-1.5")[0], jobs_of("llava-1.5", 1)
    prompt, more = job["input_ids"].shape[1], torch.tensor([[70, 71, 72], [80, 81, 82]])
    pruner = get_pruner("fastv", retention=0.1, layer=layer)

    def ask(cache, question):
        ids = torch.cat([job["input_ids"], question[None]], 1)
        return model(
            input_ids=question[None],
            attention_mask=torch.ones_like(ids),
            position_ids=torch.arange(prompt, ids.shape[1])[None],
            past_key_values=cache,
        ).logits

    with torch.no_grad(), prune(model, pruner):
        fresh = [ask(model(**job, use_cache=True).past_key_values, question) for question in more]
        kept = model(**job, use_cache=True).past_key_values
        copies = [copy.deepcopy(kept), copy.deepcopy(copy.deepcopy(kept))]
        assert all(map(torch.equal, [ask(one, question) for one, question in zip(copies, more, strict=True)], fresh))
        assert torch.equal(ask(kept, more[1]), fresh[1])  # the original has not moved
    for cache in (kept, copies[0], copy.deepcopy(kept)):
        with torch.no_grad(), pytest.raises(ModelError, match=r"pruned inside a `with prune\(...\)` block that has ended"):
            ask(cache, more[0])
    assert "_filled" not in vars(kept)


def test_a_static_cache_is_used_again_after_a_block():
    model, (job,) = opened("llava-1.5")[0], jobs_of("llava-1.5", 1)
    expected = answer(model, job, cache_implementation="static")
    with prune(model, get_pruner("fastv", retention=0.1)):
        answer(model, job, cache_implementation="static")
    assert torch.equal(answer(model, job, cache_implementation="static"), expected)


class Wrapper(nn.Module):
    """What PEFT makes of a model: a module around it whose `base_model` passes calls on."""

    def __init__(self, model):
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = model

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_model").model, name)

    def forward(self, *args, **kwargs):
        return self.base_model.model(*args, **kwargs)

    def generate(self, **kwargs):
        return self.base_model.model.generate(**kwargs)


def test_a_wrapper_is_pruned_as_the_model_that_it_calls():
    model, (job,) = opened("llava-1.5")[0], jobs_of("llava-1.5", 1)
    wrapper, pruner = Wrapper(model), get_pruner("fastv", retention=0.1)
    with prune(model, pruner) as plain:
        expected = answer(model, job)
    with prune(wrapper, pruner) as pruning:
        assert torch.equal(answer(wrapper, job), expected)
        wrapper(**job)
    assert pruning.prefills == 2
    assert torch.equal(pruning.samples[0].indices, plain.samples[0].indices)


def test_a_block_that_saw_no_prompt_says_so():
    said = []
    with prune(opened("llava-1.5")[0], get_pruner("fastv", retention=0.1), say=said.append):
        pass
    assert [line.partition(":")[0] for line in said] == ["nothing was pruned"]


@pytest.mark.parametrize("whose", ["call", "checkpoint", "config"])
@pytest.mark.parametrize("name", [*FAMILIES, "internvl-llama"])
def test_chunked_prefill_is_refused_by_name(name, whose, monkeypatch):
    model, (job,) = opened(name)[0], jobs_of(name, 1)
    size, options = job["input_ids"].shape[1] - 3, {}
    if whose == "checkpoint":
        monkeypatch.setattr(model.generation_config, "prefill_chunk_size", size)
    else:
        options = {"prefill_chunk_size": size}
    with prune(model, get_pruner("fastv", retention=0.1)) as pruning:
        with pytest.raises(ModelError, match=f"prefill_chunk_size={size} splits a prompt of {size + 3} tokens") as error:
            if whose == "config":
                config = copy.deepcopy(model.generation_config)
                config.prefill_chunk_size, config.max_new_tokens = size, 2
                model.generate(**job, generation_config=config)
            else:
                answer(model, job, **options)
        assert "prefill_chunk_size=None" in error.value.hint
        answer(model, job, prefill_chunk_size=None)  # what the hint says
    assert pruning.prefills == 1


@pytest.mark.parametrize("how", ["wrapped", "module", "forward"])
def test_a_compiled_model_is_refused_by_name(how):
    model = tiny_model("llava-1.5")[0]
    if how == "wrapped":
        model = torch.compile(model, backend="eager")
    elif how == "module":
        model.compile(backend="eager")
    else:
        model.forward = torch.compile(model.forward, backend="eager")
    with (
        pytest.raises(BiaskitError, match=r"is compiled \(torch.compile\)"),
        prune(model, get_pruner("fastv", retention=0.1)),
    ):
        pass


def test_gradient_checkpointing_is_refused_by_name():
    model, (job,) = tiny_model("llava-1.5")[0], jobs_of("llava-1.5", 1)
    model.gradient_checkpointing_enable()
    with prune(model.train(), get_pruner("fastv", retention=0.1)) as pruning:
        with pytest.raises(ModelError, match="gradient checkpointing runs the layers a second time"):
            model(**job)
        with pytest.raises(ModelError, match="generates without a cache"):  # each step would decide anew: another answer, silently
            answer(model, job)
        model.gradient_checkpointing_disable()
        model(**job).logits.sum().backward()
    assert pruning.prefills == 1 and model.get_input_embeddings().weight.grad is not None


@pytest.mark.parametrize(
    "what", [[1, 2], None, torch.tensor([1, 2]), torch.tensor([1, 2]).numpy()], ids=["list", "None", "tensor", "array"]
)
@pytest.mark.parametrize("method", ["select", "choose"])
def test_answers_of_a_plug_in_that_are_no_keep(what, method):
    odd = type("Odd", (FastV,), {method: lambda self, signals, budget: what})
    model, (job,) = opened("llava-1.5")[0], jobs_of("llava-1.5", 1)
    kind = "None" if what is None else type(what).__name__
    with prune(model, odd(budget=5)), pytest.raises(BiaskitError, match=f"Odd answered with .*{kind}") as error:
        model(**job)
    assert "Keep(indices), from biaskit.signals" in error.value.hint


@pytest.mark.parametrize("indices", [[1, 2], None, torch.tensor(3), torch.tensor([[1]]), torch.tensor([1]).to_sparse()])
def test_indices_of_a_plug_in_that_are_no_list_of_places(indices):
    class Odd(FastV):
        def choose(self, signals, budget):
            return Keep(indices)

    with pytest.raises(BiaskitError, match="Odd answered with indices that are"):
        Odd(budget=5).select_many([signals()], [5])
