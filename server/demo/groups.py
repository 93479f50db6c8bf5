"""The groups of stored features that the demo's model declares.

A customer's record and a terminal's record each hold the six windows of the handbook. An online
record is as of one transaction: after a day its shortest window says nothing any more, so it
lives for a day. The batch tables hold every entity's state at the start of the test week; they
are good for as long as the longest window.

Any stored feature that does not come from an online record marks the answer as degraded.
"""

from __future__ import annotations

from fastpath.spec import FallbackLimits, GroupSpec
from server.demo.columns import CUSTOMER_COLUMNS, TERMINAL_COLUMNS, WINDOWS_DAYS

DAY_S = 86_400.0
ID_COLUMNS = {"customer": "CUSTOMER_ID", "terminal": "TERMINAL_ID"}
COLUMNS = {"customer": CUSTOMER_COLUMNS, "terminal": TERMINAL_COLUMNS}
LIMITS = FallbackLimits(degrade_over=0)


def demo_groups(*, with_terminals: bool) -> tuple[GroupSpec, ...]:
    """Return the groups.

    Parameters
    ----------
    with_terminals : bool
        Whether the transactions name their terminals.
    """
    return tuple(
        GroupSpec(
            name=name,
            entity=name,
            columns=tuple((column, "numeric") for column in columns),
            ttl_s=min(WINDOWS_DAYS) * DAY_S,
            batch_max_age_s=max(WINDOWS_DAYS) * DAY_S,
        )
        for name, columns in COLUMNS.items()
        if name != "terminal" or with_terminals
    )
