"""The first state of a server: what it was told to serve, before anybody changed it."""

from __future__ import annotations

from collections.abc import Sequence

from server.errors import StartError
from server.repository import Repository
from server.rollout import changes
from server.rollout.loaded import LoadedModels
from server.rollout.state import PlanState


def first_state(
    repository: Repository, models: LoadedModels, wanted: Sequence[str], default_model: str
) -> PlanState:
    """Return the state of a server that remembers nothing.

    Parameters
    ----------
    repository, models
        Where bundles are, and where they are loaded.
    wanted
        "MODEL" or "MODEL@VERSION"; empty: the newest version of every model.
    default_model
        Model of requests that name none; empty: the one model.

    Raises
    ------
    StartError, BundleError
        Nothing to serve, or something cannot be.
    """
    pairs = [name.partition("@")[::2] for name in (wanted or repository.models())]
    names = [name for name, _ in pairs]
    if not pairs:
        raise StartError(
            f"{repository.path}: no models; `scoregate export` writes "
            "<repository>/<model>/<version>"
        )
    if len(set(names)) != len(names):
        raise StartError(
            f"models: {', '.join(names)}: one version of a model can serve at first; deploy "
            "the other"
        )
    if len(pairs) > 1 and not default_model:
        raise StartError(
            f"default_model: say which of {', '.join(names)} answers requests that name none"
        )
    if default_model and default_model not in names:
        raise StartError(
            f"default_model: {default_model} is not among the models: {', '.join(names)}"
        )
    sources = {name: models.get(name, version).source for name, version in pairs}
    return changes.initial(sources, default_model or names[0]).state
