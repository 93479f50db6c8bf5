"""Rows to train and validate on: read, checked, cast to float32.

Features are served as float32, so the model is compared on float32 rows from here on. Every error
names the file, the column and, where there is one, the row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from server.errors import InputError
from server.export.stock import first_line

PARQUET = {".parquet", ".pq", ".parq"}
CSV = {".csv", ".tsv", ".gz"}


@dataclass(frozen=True)
class Rows:
    """Feature rows and their targets."""

    features: NDArray[np.float32]  # [n_rows, n_features], C-contiguous; NaN: missing
    positive: NDArray[np.bool_]  # [n_rows]
    names: tuple[str, ...]
    boolean: tuple[bool, ...]  # which features were booleans
    wide: NDArray[np.float64]  # the same features before the cast

    @property
    def n_positive(self) -> int:
        """Return the number of positive rows."""
        return int(self.positive.sum())


def read_frame(path: Path | str) -> pd.DataFrame:
    """Read a Parquet or CSV file (by its suffix)."""
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if suffix in PARQUET:
            return pd.read_parquet(path)
        if suffix in CSV:
            return pd.read_csv(path, sep="\t" if suffix == ".tsv" else ",")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror or first_line(error)}"
        ) from error
    except Exception as error:  # what a damaged file raises depends on its format
        raise InputError(f"{path}: not a readable table: {first_line(error)}") from error
    raise InputError(f"{path}: a .parquet, .csv or .tsv file is needed")


def split_by_time(
    frame: pd.DataFrame, column: str, share: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split rows chronologically: the last `share` of them validate.

    Rows of one moment stay together, on the validation side.
    """
    if column not in frame.columns:
        raise InputError(f"--time-column {column}: {_no_such_column(column, frame)}")
    if not 0.0 < share < 1.0:
        raise InputError(f"--valid-share {share}: a share between 0 and 1 is needed")
    times = frame[column]
    if times.isna().any():
        raise InputError(f"time column {column!r}: row {int(times.isna().argmax())} has no time")
    try:
        ordered = times.sort_values()
    except TypeError as error:
        raise InputError(
            f"time column {column!r} cannot be ordered: {first_line(error)}"
        ) from error
    cut = ordered.iloc[int(len(ordered) * (1.0 - share))]
    late = times >= cut
    train, valid = frame[~late], frame[late]
    if not len(train) or not len(valid):
        raise InputError(
            f"time column {column!r}: a share of {share} leaves {len(train)} training and "
            f"{len(valid)} validation rows"
        )
    return train, valid


def feature_names(model: Any, frame: pd.DataFrame, not_features: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the model's input columns, in its order.

    They are the names that the model was fitted with; a model without names takes all columns but
    the target and the time, which must then be as many as it was fitted with.
    """
    known = getattr(model, "feature_names_in_", None)
    if known is not None:
        names = tuple(str(name) for name in known)
        missing = [name for name in names if name not in frame.columns]
        if missing:
            raise InputError(
                f"the model was fitted with {', '.join(missing[:5])}"
                f"{' …' if len(missing) > 5 else ''}, which the data lack"
            )
        return names
    names = tuple(str(name) for name in frame.columns if name not in not_features)
    wanted = getattr(model, "n_features_in_", None)
    if wanted is not None and wanted != len(names):
        raise InputError(
            f"the model was fitted with {wanted} features without names, the data have "
            f"{len(names)}: name them with --features, or fit the model on a DataFrame"
        )
    return names


def make_rows(features: pd.DataFrame, target: Any, classes: Sequence[Any], what: str) -> Rows:
    """Check and cast rows.

    Parameters
    ----------
    features : pandas.DataFrame
        The model's input columns, numbers or booleans, in its order.
    target : array-like, shape (n_rows,)
        Values from `classes`.
    classes : sequence of two values
        Negative, positive.
    what : str
        "training" or "validation", for messages.
    """
    if not len(features):
        raise InputError(f"the {what} data have no rows")
    columns = [_numbers(features[name], what) for name in features.columns]
    wide = np.column_stack(columns)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    infinite = np.isinf(narrow)
    if infinite.any():
        row, column = (int(x) for x in np.argwhere(infinite)[0])
        raise InputError(
            f"{what} data: feature {features.columns[column]!r} is {wide[row, column]} at row "
            f"{row}: a finite float32 is needed; leave the value out if it is missing"
        )
    return Rows(
        features=np.ascontiguousarray(narrow),
        positive=_positive(target, classes, what),
        names=tuple(str(name) for name in features.columns),
        boolean=tuple(pd.api.types.is_bool_dtype(dtype) for dtype in features.dtypes),
        wide=wide,
    )


def _numbers(column: Any, what: str) -> NDArray[np.float64]:
    if isinstance(column, pd.DataFrame):
        raise InputError(f"{what} data: column {column.columns[0]!r} stands twice")
    plain = pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype)
    if not plain or column.dtype.kind == "c":
        raise InputError(
            f"{what} data: feature {column.name!r} has dtype {column.dtype}: only numbers and "
            "booleans can be features; encode it as a number before training"
        )
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def _positive(target: Any, classes: Sequence[Any], what: str) -> NDArray[np.bool_]:
    values = pd.Series(np.asarray(target))
    if values.isna().any():
        raise InputError(f"{what} data: the target is missing at row {int(values.isna().argmax())}")
    positive: NDArray[np.bool_] = (values == classes[1]).to_numpy(dtype=np.bool_)
    unknown = ~positive & ~(values == classes[0]).to_numpy(dtype=np.bool_)
    if unknown.any():
        raise InputError(
            f"{what} data: the target is {values[int(unknown.argmax())]!r} at row "
            f"{int(unknown.argmax())}; the model's classes are {list(classes)}"
        )
    if positive.all() or not positive.any():
        only = classes[1] if positive.all() else classes[0]
        raise InputError(f"{what} data: every target is {only!r}; both classes are needed")
    return positive


def _no_such_column(name: str, frame: pd.DataFrame) -> str:
    shown = ", ".join(str(column) for column in frame.columns[:12])
    return f"no such column; there are {shown}{' …' if frame.shape[1] > 12 else ''}"


def take_column(frame: pd.DataFrame, name: str, option: str) -> Any:
    """Return a column, or raise InputError that names the option and the columns there are."""
    if name not in frame.columns:
        raise InputError(f"{option} {name}: {_no_such_column(name, frame)}")
    return frame[name]


def fingerprint(frame: pd.DataFrame) -> str:
    """Return SHA-256, in hex, over the columns' names, dtypes and values, column by column."""
    digest = hashlib.sha256()
    for position, name in enumerate(frame.columns):
        values = frame.iloc[:, position].to_numpy()
        digest.update(f"{name}\0{frame.dtypes.iloc[position]}\0{len(values)}\n".encode())
        if values.dtype.kind in "biufmM":
            digest.update(np.ascontiguousarray(values).tobytes())
        else:
            for value in values:
                digest.update(f"{value!r}\n".encode())
    return digest.hexdigest()
