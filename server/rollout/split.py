"""Weights and bucket tables of a model's arms: the arithmetic under the changes.

Rules
-----
* Weights are basis points and add up to 10,000; an arm's weight is the number of buckets that it
  owns, so a model's table and its weights always agree.
* A share that is taken from or given to several arms is divided in proportion to their weights,
  rounded by the largest remainder, ties in the order of the arms. Of arms that give, none grows; of
  arms that receive, none shrinks.
* Buckets move by `BucketTable.rebalance`, which moves the fewest possible.

This module knows arms by index and by name, not why they change: see `changes`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from msgspec.structs import replace

from fastpath.routing import BucketTable
from server.errors import ChangeError
from server.rollout.state import ArmState, ModelState, pack_table, unpack_table

ALL_BASIS_POINTS = 10_000
MAX_ARMS = 255  # a table keeps an arm's index in one byte


def check_basis_points(basis_points: int, what: str) -> None:
    """Refuse a weight outside 0 to 10,000.

    Raises
    ------
    ChangeError
        It is.
    """
    if not 0 <= basis_points <= ALL_BASIS_POINTS:
        raise ChangeError(
            f"{what}: a weight is 0 to {ALL_BASIS_POINTS} basis points (hundredths of a percent), "
            f"not {basis_points}"
        )


def in_proportion(weights: Sequence[int], total: int) -> list[int]:
    """Return whole numbers that add up to `total`, in proportion to `weights`.

    Parameters
    ----------
    weights
        At least one above 0, unless `total` is 0.
    total
        What the numbers add up to.
    """
    if total == 0:
        return [0] * len(weights)
    whole = sum(weights)
    shares = [weight * total // whole for weight in weights]
    # The sort is stable: equal remainders are served in the order of the arms.
    by_remainder = sorted(range(len(weights)), key=lambda i: -(weights[i] * total % whole))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def with_weights(
    model: ModelState, weights: Sequence[int], newcomers: Sequence[ArmState] = ()
) -> ModelState:
    """Return a model with other weights, its table changed as little as possible.

    Parameters
    ----------
    model
        What it was.
    weights
        Basis points of its arms and then of the newcomers, adding up to 10,000.
    newcomers
        Arms that join behind the others.
    """
    arms = (*model.arms, *newcomers)
    table = BucketTable(model.salt.encode(), unpack_table(model.table)).rebalance(weights)
    return replace(
        model,
        arms=tuple(
            replace(arm, weight_basis_points=weight)
            for arm, weight in zip(arms, weights, strict=True)
        ),
        table=pack_table(table.to_bytes()),
    )


def without_arms(model: ModelState, leaving: Collection[str]) -> ModelState:
    """Return a model without some of its arms, which own no bucket any more.

    The indexes of those that stay close up, in the arms and in the table alike.
    """
    staying = [i for i, arm in enumerate(model.arms) if arm.name not in leaving]
    indexes = bytearray(256)
    for new, old in enumerate(staying):
        indexes[old] = new
    return replace(
        model,
        arms=tuple(model.arms[i] for i in staying),
        table=pack_table(unpack_table(model.table).translate(bytes(indexes))),
    )


def n_moved(before: ModelState, after: ModelState) -> int:
    """Return how many of a model's 10,000 buckets another bundle scores than before.

    Arms count as the same when they serve the same bundle, whatever they are called. With another
    salt, every key may fall into another bucket: all count, unless one bundle had and has them all.
    """
    bundles = sorted({arm.sha256 for model in (before, after) for arm in model.arms})
    owners = [_bundle_of_bucket(model, bundles) for model in (before, after)]
    if before.salt != after.salt:
        return 0 if len(np.unique(owners)) == 1 else ALL_BASIS_POINTS
    return int(np.count_nonzero(owners[0] != owners[1]))


def _bundle_of_bucket(model: ModelState, bundles: Sequence[str]) -> np.ndarray:
    by_arm = np.array([bundles.index(arm.sha256) for arm in model.arms])
    return by_arm[np.frombuffer(unpack_table(model.table), dtype=np.uint8)]
