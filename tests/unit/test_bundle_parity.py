"""Loading proves the engine: rows at the thresholds, and a difference refuses the bundle."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from fastpath.forest import Forest
from fastpath.linear import Linear
from server.bundle import Bundle, load, load_model, read_bundle
from server.bundle.arrays import encode_arrays
from server.bundle.graph import ForestGraph
from server.bundle.load import golden_rows
from server.bundle.manifest import GOLDEN, MODEL
from server.bundle.parity import SPECIAL, check_equal, edge_values, first_difference, threshold_rows
from server.errors import BundleError, ParityError
from tests.support.models import NAMES, export_small


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(export_small(tmp_path_factory.mktemp("repository") / "fraud" / "1").path)


def replaced(bundle: Bundle, **content: bytes) -> Bundle:
    names = {"model": MODEL, "golden": GOLDEN}
    changed = {**bundle.content, **{names[key]: value for key, value in content.items()}}
    return Bundle(bundle.path, bundle.manifest, bundle.schema, bundle.sha256, changed)


def test_edge_values_hold_every_neighbour_and_special_value() -> None:
    thresholds = np.array([-1.5, 0.0, 3.0], np.float32)
    values = set(edge_values(thresholds).view(np.uint32).tolist())
    for t in thresholds:
        for value in (t, np.nextafter(t, np.float32(9)), np.nextafter(t, np.float32(-9))):
            assert np.float32(value).view(np.uint32) in values
    assert set(SPECIAL.view(np.uint32).tolist()) <= values


def test_threshold_rows_are_bounded_repeatable_and_complete() -> None:
    rng = np.random.default_rng(0)
    thresholds = [np.sort(rng.normal(size=n)).astype(np.float32) for n in (0, 5, 300)]
    base = rng.normal(size=(20, 3)).astype(np.float32)
    every = threshold_rows(thresholds, base, None)
    for j, t in enumerate(thresholds):
        seen = set(every[:, j].view(np.uint32).tolist())
        assert set(edge_values(t).view(np.uint32).tolist()) <= seen
    limited = threshold_rows(thresholds, base, 200)
    assert len(limited) <= 200
    again = threshold_rows(thresholds, base, 200)
    assert np.array_equal(limited.view(np.uint32), again.view(np.uint32))


def test_differences_are_found_to_the_bit() -> None:
    one = np.array([1.0, np.nan, 0.0], np.float32)
    assert first_difference(one, one.copy()) is None
    assert first_difference(one, np.array([1.0, np.nan, -0.0], np.float32)) == 2
    assert first_difference(one, np.array([1.0, 0.0, 0.0], np.float32)) == 1
    rows = np.array([[1, 2]] * 3, np.float32)
    with pytest.raises(ParityError, match=r"\{a: 1\.0, b: 2\.0\}"):
        check_equal(rows, one, np.array([1, 2, 3], np.float32), ["a", "b"], "here")


def test_load_says_what_it_built(bundle: Bundle) -> None:
    loaded = load_model(bundle)
    assert loaded.engine == "forest"
    assert loaded.sha256 == bundle.sha256
    assert loaded.schema.n_features == 6
    assert loaded.parity_rows > 500
    rows, raw = golden_rows(bundle)
    assert np.array_equal(loaded.model.score(rows), raw)


def test_a_wrong_golden_score_refuses_the_bundle(bundle: Bundle) -> None:
    rows, raw = golden_rows(bundle)
    raw[7] = np.nextafter(raw[7], np.float32(9))
    with pytest.raises(ParityError, match=rf"golden rows as stored.*{NAMES[0]}: "):
        load_model(replaced(bundle, golden=encode_arrays({"rows": rows, "raw": raw})))


def test_another_models_trees_refuse_the_bundle(bundle: Bundle) -> None:
    proto = onnx.load_from_string(bundle.content[MODEL])
    attributes = {item.name: item for item in proto.graph.node[0].attribute}
    first = attributes["nodes_values"].floats[0]
    attributes["nodes_values"].floats[0] = float(np.nextafter(np.float32(first), np.float32(1e9)))
    attributes["target_weights"].floats[0] += 2.0**-10
    with pytest.raises(ParityError):
        load_model(replaced(bundle, model=proto.SerializeToString()))


def test_a_difference_that_golden_rows_do_not_show_is_found(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that sends NaN the wrong way is right on every row without one."""
    build = load.native_engine

    def wrong(graph: ForestGraph) -> Forest | Linear | None:
        return build(dataclasses.replace(graph, missing_true=~graph.missing_true))

    rows, raw = golden_rows(bundle)
    whole = ~np.isnan(rows).any(axis=1)
    golden = encode_arrays({"rows": rows[whole], "raw": raw[whole]})
    load_model(replaced(bundle, golden=golden))
    monkeypatch.setattr(load, "native_engine", wrong)
    with pytest.raises(ParityError, match=r"the native engine gives .* on row \{f0: .*nan"):
        load_model(replaced(bundle, golden=golden))


def test_golden_arrays_must_fit(bundle: Bundle) -> None:
    rows, raw = golden_rows(bundle)
    cases: list[dict[str, NDArray[Any]]] = [
        {"rows": rows},
        {"rows": rows[:, :5].copy(), "raw": raw},
        {"rows": rows[:0], "raw": raw[:0]},
        {"rows": rows.astype(np.float64), "raw": raw},
    ]
    for arrays in cases:
        with pytest.raises(BundleError, match=r"golden\.npz"):
            load_model(replaced(bundle, golden=encode_arrays(arrays)))


def test_the_serving_side_stays_light(bundle: Bundle) -> None:
    """Loading must not import what only the export needs."""
    code = (
        "import sys; from server.bundle import read_bundle, load_model;"
        "load_model(read_bundle(sys.argv[1]));"
        "heavy={'onnx','onnxruntime','scipy','sklearn','pandas','pyarrow','rich'};"
        "print(sorted(heavy & {m.split('.')[0] for m in sys.modules}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(bundle.path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert run.stdout.strip() == "[]"
