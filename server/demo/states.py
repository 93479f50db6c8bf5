"""The state of every customer and terminal at one moment: what a nightly batch job would load.

Where the features are computed here, each entity gets a transaction of its own at that moment,
which counts in nobody's windows (those end before its second), and the features of these rows are
the states. A file's own features cannot be computed again: there an entity's state is that of its
last transaction, and holds as of then.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from server.demo.columns import NEEDED_COLUMNS, TARGET
from server.demo.features import compute_features
from server.demo.groups import COLUMNS, ID_COLUMNS
from server.demo.tables import Table


def states_at(frame: pd.DataFrame, moment: pd.Timestamp, *, computed: bool) -> list[Table]:
    """Return the tables, one for each kind of entity that the transactions name.

    Parameters
    ----------
    frame : pandas.DataFrame
        Transactions with features, in the order of time.
    moment : pandas.Timestamp
        Transactions from here on are not known.
    computed : bool
        Whether the features are those of `compute_features`.
    """
    known = frame[frame["TX_DATETIME"] < moment]
    names = [name for name, column in ID_COLUMNS.items() if column in frame.columns]
    if not computed:
        return [_last(known, name) for name in names]
    ids = {name: known[ID_COLUMNS[name]].unique() for name in names}
    n_rows = max(map(len, ids.values()))
    probes = pd.DataFrame({ID_COLUMNS[name]: np.resize(ids[name], n_rows) for name in names})
    probes = probes.assign(TX_DATETIME=moment, TX_AMOUNT=0.0, **{TARGET: 0})
    columns = list(NEEDED_COLUMNS)
    both = pd.concat([known[columns], probes[columns]], ignore_index=True)
    states = compute_features(both, as_published=False).iloc[len(known) :]
    return [
        _table(name, pd.Series(ids[name]), probes["TX_DATETIME"], states.iloc[: len(ids[name])])
        for name in names
    ]


def _last(known: pd.DataFrame, name: str) -> Table:
    last = known.drop_duplicates(ID_COLUMNS[name], keep="last")
    return _table(name, last[ID_COLUMNS[name]], last["TX_DATETIME"], last)


def _table(name: str, ids: pd.Series, moments: pd.Series, states: pd.DataFrame) -> Table:
    times: npt.NDArray[np.int64] = moments.to_numpy(dtype="datetime64[ms]").astype(np.int64)
    return Table(
        group=name,
        ids=ids.astype(str).to_numpy(dtype=np.str_),
        event_time_ms=times[: len(ids)],
        values=states[list(COLUMNS[name])].to_numpy(dtype=np.float32),
    )
