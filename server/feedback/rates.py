"""How many decisions are recorded: all of them, or a steady number a second and every high score.

Rules: a version's share of request ids follows its traffic. It is 1 while that is below what is
wanted, and changes in steps else: the probability is written beside each decision, so a share that
stays makes for weights that stay. Scores from the lowest threshold in force are recorded always;
they are few, and nearly all positives are among them.
"""

from __future__ import annotations

from collections.abc import Mapping

from server.monitoring.sampling import Sampler

# A share is kept while what is wanted is within these of it.
SHRINK, GROW = 0.8, 1.5


class RecordRates:
    """Shares of request ids to record, by metrics slot.

    Parameters
    ----------
    records_per_s
        Decisions a second that are wanted of each slot.
    """

    def __init__(self, records_per_s: float) -> None:
        self._sampler = Sampler(records_per_s)
        self._shares: dict[int, float] = {}

    def shares(self, predictions: Mapping[int, int], elapsed_s: float) -> dict[int, float]:
        """Return the share of each slot.

        Parameters
        ----------
        predictions
            Slot -> predictions so far.
        elapsed_s
            Since the last time; 0 at first.
        """
        wanted = self._sampler.rates(predictions, elapsed_s)
        self._shares = {
            slot: self._step(self._shares.get(slot), share) for slot, share in wanted.items()
        }
        return dict(self._shares)

    def _step(self, now: float | None, wanted: float) -> float:
        if now is None or wanted < now * SHRINK or wanted > now * GROW:
            return wanted
        # Nearly everything is recorded: then all of it can be.
        return 1.0 if wanted >= 1.0 else now
