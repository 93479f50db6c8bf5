"""What may go wrong with the stream that the demo replays, on purpose.

Every fault is one that upstreams really have, and sits in what the caller sends, so it is the same
whether a store holds the other features or not. From a moment on it touches every call; `traffic`
puts it there. Free of numpy: `demo --help` does not wait for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

FaultKind = Literal["none", "amount", "dropped", "stuck"]
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes
    ----------
    feature : str
        Which one it is in; empty: none.
    words : str
        What happens, for people, after "from now on".
    expected : str
        What drift monitoring should make of it.
    """

    feature: str
    words: str
    expected: str


FAULTS: dict[FaultKind, Fault] = {
    "none": Fault("", "nothing is injected", "the state stays stable"),
    "amount": Fault(
        "TX_AMOUNT",
        "amounts come in cents instead of currency units (TX_AMOUNT x 100)",
        "a warning, then retrain",
    ),
    "dropped": Fault(
        "TX_DURING_NIGHT", "TX_DURING_NIGHT is not sent any more", "a broken pipeline"
    ),
    "stuck": Fault(
        "TX_AMOUNT", "the upstream repeats one amount (TX_AMOUNT)", "a warning, then broken"
    ),
}
