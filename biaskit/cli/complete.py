"""Shell completion: names of checkpoints, methods, tasks, image sources and priors. Imports nothing large."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Completion = Callable[[str], list[str]]


def models(incomplete: str) -> list[str]:
    """Short names of checkpoints, the embedded ones among them."""
    from biaskit.families.checkpoints.catalog import CHECKPOINTS, EMBEDDED

    return _beginning(incomplete, [*EMBEDDED, *CHECKPOINTS])


def priors(incomplete: str) -> list[str]:
    """Names of the priors in ./priors and of those that come with biaskit."""
    from biaskit.prior.store import prior_names

    return _beginning(incomplete, prior_names())


def pruner(incomplete: str) -> list[str]:
    """Names of methods."""
    return _beginning(incomplete, _written("biaskit.pruners"))


def pruners(incomplete: str) -> list[str]:
    """Methods; the last one of a comma-separated list is completed."""
    return _last(incomplete, ["none", *_written("biaskit.pruners")])


def tasks(incomplete: str) -> list[str]:
    """Tasks; the last one of a comma-separated list is completed."""
    return _last(incomplete, _written("biaskit.tasks"))


def sources(incomplete: str) -> list[str]:
    """Image sources by name."""
    return _beginning(incomplete, _written("biaskit.images"))


def _written(package: str) -> list[str]:
    from biaskit.registry import written_names

    return written_names(package)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in set(names) if name.startswith(incomplete))


def _last(incomplete: str, names: Iterable[str]) -> list[str]:
    done, comma, last = incomplete.rpartition(",")
    return [f"{done}{comma}{name}" for name in _beginning(last, names)]
