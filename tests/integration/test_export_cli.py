"""`scoregate export` and `scoregate inspect` as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression

from server import cli
from server.bundle import read_bundle
from server.drift import load_reference
from tests.support.models import fitted, make_data

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, rows with a time column, and validation rows."""
    folder = tmp_path_factory.mktemp("files")
    joblib.dump(fitted(), folder / "m.joblib")
    for name, seed in (("rows", 0), ("valid", 1)):
        data = make_data(800, seed=seed)
        frame = data.frame.assign(y=data.y, t=pd.date_range("2024", periods=800, freq="min"))
        frame.to_parquet(folder / f"{name}.parquet")
        frame.to_csv(folder / f"{name}.csv", index=False)
    return folder


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )


def test_the_road_from_joblib_to_inspect(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "repo" / "fraud" / "2024-01"
    (tmp_path / "d.json").write_text('{"f0": {"default": 0.5, "required": true}}')
    done = run(
        "export", "--model", files / "m.joblib", "--data", files / "rows.parquet",
        "--target", "y", "--time-column", "t", "--valid-share", "0.4", "--out", out,
        "--threshold", "review=0.3", "--threshold", "block=0.8", "--prior", "0.1",
        "--defaults", tmp_path / "d.json", "--routing-entity", "customer", "--max-trees", "auto",
        "--max-ap-loss", "0.02", "--tolerance", "0.001",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("average precision", "decision flips at review", "Fewer trees", "clipped"):
        assert words in done.stdout
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert manifest["training"]["n_rows"] == 480
    assert [t["name"] for t in manifest["thresholds"]] == ["review", "block"]
    assert manifest["routing_entity"] == "customer"
    assert manifest["quantization"]["n_trees"] < 10
    assert manifest["quantization"]["sizes"]["model_file_bytes"] > 0
    # Anyone can run the graph.
    session = onnxruntime.InferenceSession(out / "model.onnx")
    rows = make_data(5).x
    assert session.run(None, {session.get_inputs()[0].name: rows})[0].shape == (5, 1)

    shown = run("inspect", out)
    assert (shown.returncode, shown.stderr) == (0, "")
    for words in ("fraud 2024-01", "f0", "review", "bit by bit", "forest", "golden.npz"):
        assert words in shown.stdout
    data = json.loads(run("inspect", "--json", out).stdout)
    assert data["verified"] is True
    assert data["manifest"] == manifest
    assert set(data["files"].values()) == {"ok"}

    again = run(
        "export", "--model", files / "m.joblib", "--data", files / "rows.csv", "--target", "y",
        "--valid", files / "valid.csv", "--out", out,
    )  # fmt: skip
    assert again.returncode == 2
    assert "exists already" in again.stderr

    (out / "calibration.npz").write_bytes(b"x")
    broken = run("inspect", out)
    assert broken.returncode == 2
    assert "calibration.npz: holds 1 bytes" in broken.stderr
    assert len(broken.stderr.splitlines()) == 1
    assert run("inspect", "--no-verify", out).returncode == 0
    assert json.loads(run("inspect", "--json", out).stdout)["verified"] is False


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str]:
    """Run the command line in this process; return exit code and stderr."""
    monkeypatch.setattr(sys, "argv", ["scoregate", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    code = caught.value.code
    return (code if isinstance(code, int) else 0), capsys.readouterr().err


def test_errors_are_one_line_and_exit_code_2(
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = make_data(200)
    forest = RandomForestClassifier(3)
    joblib.dump(LinearRegression().fit(data.frame, data.y), tmp_path / "regressor.joblib")
    joblib.dump(forest.fit(data.x, np.arange(200) % 3), tmp_path / "three.joblib")
    joblib.dump(forest.fit(data.x[:, :4], data.y), tmp_path / "four.joblib")
    (tmp_path / "noise.joblib").write_bytes(b"\x00\x01noise")
    (tmp_path / "bad.json").write_text('{"f0": {"fallback": 1}}')
    frame = pd.read_parquet(files / "rows.parquet")
    frame.assign(f2="text").to_parquet(tmp_path / "text.parquet")
    frame.assign(y=0).to_parquet(tmp_path / "one.parquet")
    frame.assign(y=np.where(np.arange(800) == 5, np.nan, frame["y"])).to_parquet(
        tmp_path / "holes.parquet"
    )
    frame.drop(columns="f3").to_parquet(tmp_path / "narrow.parquet")
    usual: dict[str, object] = {
        "--model": files / "m.joblib",
        "--data": files / "rows.parquet",
        "--target": "y",
        "--valid": files / "valid.parquet",
        "--out": tmp_path / "repo" / "m" / "1",
    }
    cases: list[tuple[dict[str, object], str]] = [
        ({"--model": tmp_path / "none.joblib"}, "none.joblib: cannot be read"),
        ({"--model": tmp_path}, "is a directory"),
        ({"--model": tmp_path / "noise.joblib"}, "not a model that joblib can open"),
        ({"--model": tmp_path / "regressor.joblib"}, "LinearRegression is not a classifier"),
        ({"--model": tmp_path / "three.joblib", "--features": "f0,f1,f2,f3,f4,f5"}, "3 classes"),
        ({"--model": tmp_path / "four.joblib"}, "name them with --features"),
        ({"--data": tmp_path / "none.parquet"}, "none.parquet: cannot be read"),
        ({"--data": files / "m.joblib"}, "a .parquet, .csv or .tsv file is needed"),
        ({"--data": tmp_path / "text.parquet"}, "feature 'f2' has dtype"),
        ({"--data": tmp_path / "one.parquet"}, "every target is 0"),
        ({"--data": tmp_path / "holes.parquet"}, "target is missing at row 5"),
        ({"--data": tmp_path / "narrow.parquet"}, "fitted with f3, which the data lack"),
        ({"--valid": tmp_path / "narrow.parquet"}, "f3: no such column"),
        ({"--target": "label"}, "--target label: no such column; there are f0, f1"),
        ({"--valid": None}, "one of --valid FILE and --time-column"),
        ({"--time-column": "when"}, "--time-column when: no such column"),
        ({"--time-column": "f0"}, "valid.parquet: column 'f0' (float32) does not hold a time"),
        ({"--valid": None, "--time-column": "when"}, "--time-column when: no such column"),
        ({"--threshold": "review"}, "not of the form name=score"),
        ({"--threshold": "review=2"}, "threshold review=2.0"),
        ({"--max-trees": "many"}, "neither a number of trees nor auto"),
        ({"--defaults": tmp_path / "bad.json"}, "fallback"),
        ({"--defaults": tmp_path / "none.json"}, "none.json: cannot be read"),
    ]
    for change, words in cases:
        options = {**usual, **change}
        arguments = [x for key, value in options.items() if value is not None for x in (key, value)]
        code, error = call(monkeypatch, capsys, "export", *arguments)
        assert code == 2, (change, error)
        # click draws usage errors over several lines; ours are one.
        text = " ".join(error.split())
        assert words in text, (change, error)
        assert "Traceback" not in error
        if error.startswith("scoregate:"):
            assert len(error.splitlines()) == 1, error
    assert not (tmp_path / "repo").exists()


def test_a_file_of_validation_rows_can_have_event_times(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "d.json").write_text('{"f0": {"monitor": "calendar"}}')
    out = tmp_path / "repo" / "m" / "1"
    code, error = call(
        monkeypatch, capsys, "export", "--model", files / "m.joblib", "--data",
        files / "rows.parquet", "--target", "y", "--valid", files / "valid.csv", "--time-column",
        "t", "--defaults", tmp_path / "d.json", "--out", out,
    )  # fmt: skip
    assert (code, error) == (0, "")
    reference = load_reference(read_bundle(out))
    frame = pd.read_parquet(files / "valid.parquet")
    assert reference.n_rows == len(frame)  # all of them: nothing was split off
    assert reference.newest_ms == round(frame["t"].max().timestamp() * 1000)
    assert set(reference.hours) == {0, 6}  # the feature, and the raw score with it
    assert json.loads((out / "manifest.json").read_bytes())["training"]["n_rows"] == 800


def test_a_model_of_another_release_is_one_line_of_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.cli.export import load_estimator

    monkeypatch.setattr("sklearn.base.__version__", "1.0.2")
    joblib.dump(fitted(), tmp_path / "old.joblib")
    monkeypatch.undo()
    load_estimator(tmp_path / "old.joblib")
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pickled by scikit-learn 1.0.2" in error


def test_help_warns_that_pickles_run_code() -> None:
    shown = run("export", "--help")
    assert shown.returncode == 0
    assert "WARNING: a joblib file is a pickle" in " ".join(shown.stdout.split())
