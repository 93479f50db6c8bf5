"""`scoregate export`: turn a scikit-learn model into a bundle."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from server.cli.progress import Progress
from server.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

FILE = click.Path(dir_okay=False, path_type=Path)


def _named_scores(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> dict[str, float]:
    """Parse `name=score` pairs."""
    scores: dict[str, float] = {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            score = float(number)
        except ValueError:
            name = ""
        if not name:
            raise click.BadParameter(f"{value!r} is not of the form name=score, as in review=0.5")
        if name in scores:
            raise click.BadParameter(f"{name!r} is given twice")
        scores[name] = score
    return scores


def _tree_count(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> int | Literal["auto"] | None:
    """Parse a number of trees or "auto"."""
    if value is None or value == "auto":
        return value  # type: ignore[return-value]
    if not value.isdigit() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither a number of trees nor auto")
    return int(value)


@click.command()
@click.option("--model", "model_file", type=FILE, required=True, help="The fitted model (joblib).")
@click.option("--data", type=FILE, required=True, help="Its training rows, Parquet or CSV.")
@click.option("--target", required=True, help="The target's column.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The new bundle: REPOSITORY/MODEL/VERSION.",
)
@click.option("--valid", type=FILE, help="Validation rows, Parquet or CSV.")
@click.option(
    "--time-column",
    help="Without --valid: the last rows by this column validate. With it: when its rows were "
    "taken, for what depends on the hour of the week.",
)
@click.option(
    "--valid-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.25,
    show_default=True,
    help="With --time-column and without --valid: the share of rows that validate.",
)
@click.option("--features", help="Input columns, comma-separated, for a model without names.")
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    callback=_named_scores,
    metavar="NAME=SCORE",
    help="A decision and the score from which it is taken; repeatable.",
)
@click.option(
    "--default-decision", default="approve", show_default=True, help="Below all thresholds."
)
@click.option("--prior", type=float, help="Prevalence at serving, if not the training rows'.")
@click.option(
    "--defaults",
    type=FILE,
    help='JSON: {"feature": {"default": 0, "minimum": 0, "maximum": 9, "on_range": "clip", '
    '"required": true}}; with stored features {"features": {"feature": {"source": "group", '
    '"ttl_s": 3600}}, "groups": [{"name": "group", "entity": "customer"}], "fallback": '
    '{"degrade": {"more_than": 3}}}, as docs/features.md explains.',
)
@click.option("--routing-entity", default="", help="Entity type that traffic is split on.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=1e-3,
    show_default=True,
    help="Largest difference in probability to scikit-learn; beyond it the export is refused.",
)
@click.option("--select-features", type=click.IntRange(1), help="Fit again on the K best features.")
@click.option("--max-trees", callback=_tree_count, metavar="N|auto", help="Keep fewer trees.")
@click.option(
    "--max-ap-loss",
    type=click.FloatRange(0, 1),
    default=1e-3,
    show_default=True,
    help="With --max-trees auto: average precision that may be lost.",
)
@click.option("--name", help="The model's name, if not that of OUT's parent folder.")
@click.option("--version", help="The version, if not OUT's last part.")
def export(
    model_file: Path,
    data: Path,
    target: str,
    out: Path,
    valid: Path | None,
    time_column: str | None,
    valid_share: float,
    features: str | None,
    defaults: Path | None,
    **chosen: Any,
) -> None:
    """Turn a fitted scikit-learn classifier into a quantized ONNX bundle.

    Everything is compared with scikit-learn on validation rows that the model was not fitted on,
    and a report says what changed.

    WARNING: a joblib file is a pickle: opening one runs whatever code it holds. Only export
    models that you trust. Bundles themselves hold no code.
    """
    from server.bundle import check_vacant
    from server.bundle.render import print_report
    from server.bundle.tables import stdout_console
    from server.export import ExportOptions, export_model
    from server.export.frame import feature_names, fingerprint, take_column
    from server.export.options import FeatureFile, read_feature_file
    from server.export.times import event_times_ms, needed_times_ms

    if valid is None and time_column is None:
        raise click.UsageError(
            "one of --valid FILE and --time-column COLUMN is needed: the report must be taken on "
            "rows that the model was not fitted on"
        )
    check_vacant(out)
    declared = read_feature_file(defaults) if defaults else FeatureFile()
    progress = Progress()
    with progress:
        progress.step("reading the model")
        model = load_estimator(model_file)
        progress.step("reading the rows")
        train, test = _read_rows(data, valid, time_column, valid_share)
        times = None
        if time_column and valid:
            times = needed_times_ms(take_column(test, time_column, "--time-column"), str(valid))
        elif time_column:
            times = event_times_ms(test[time_column])
        not_features = [target, *([time_column] if time_column else [])]
        names = [name.strip() for name in features.split(",")] if features else None
        if names is None:
            take_column(train, target, "--target")
            names = list(feature_names(model, train, not_features))
        parts = []
        for frame, option in ((train, "--features"), (test, "--valid: column")):
            columns = {name: take_column(frame, name, option) for name in names}
            parts.append((type(frame)(columns), take_column(frame, target, "--target")))
        (x_train, y_train), (x_test, y_test) = parts
        report = export_model(
            model,
            x_train,
            y_train,
            x_test,
            y_test,
            out=out,
            options=ExportOptions(
                target=target,
                model_file=model_file,
                features=declared.features,
                groups=declared.groups,
                fallback=declared.fallback,
                fingerprint=fingerprint(train[[*names, target]]),
                valid_time_ms=times,
                **chosen,
            ),
            step=progress.step,
        )
    print_report(stdout_console(), report.quantization)
    click.echo(f"{report.path}: written, SHA-256 {report.sha256.hex()}")


def load_estimator(path: Path) -> Any:
    """Unpickle a fitted model; a version mismatch is one line on stderr."""
    import joblib
    from sklearn.exceptions import InconsistentVersionWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = joblib.load(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
        except Exception as error:  # unpickling raises whatever the pickle makes it raise
            text = (str(error).strip().splitlines() or [""])[0]
            raise InputError(
                f"{path}: not a model that joblib can open here: {type(error).__name__}: {text}; "
                "dump it with joblib.dump, and install here what it was made with"
            ) from error
    for item in caught:
        if isinstance(item.message, InconsistentVersionWarning):
            click.echo(
                f"scoregate: warning: {path}: pickled by scikit-learn "
                f"{item.message.original_sklearn_version}, opened by "
                f"{item.message.current_sklearn_version}: it may predict differently here; the "
                "report compares with what it predicts here",
                err=True,
            )
            break
    return model


def _read_rows(
    data: Path, valid: Path | None, time_column: str | None, share: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    from server.export.frame import read_frame, split_by_time

    frame = read_frame(data)
    if valid is not None:
        return frame, read_frame(valid)
    return split_by_time(frame, str(time_column), share)
