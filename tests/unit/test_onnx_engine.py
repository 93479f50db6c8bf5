"""ONNX Runtime through its C API: the same bits as the stock Python package; clear refusals."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.random_forests import hard_rows, one_node_model, onnx_forest, perfect_forest
from fastpath.errors import ModelError, RuntimeLibraryError
from fastpath.onnx import KNOWN_GRAPH, OnnxModel, library_path, library_version


def affine(
    *,
    input_shape: list[Any],
    output_shape: list[Any] | None,
    input_type: int = TensorProto.FLOAT,
    output_type: int = TensorProto.FLOAT,
    n_inputs: int = 1,
    weight_shape: tuple[int, ...] = (2, 1),
) -> bytes:
    """Build x @ w, with whatever the caller wants to be wrong."""
    dtype = helper.tensor_dtype_to_np_dtype(input_type)
    weights = np.arange(1, 1 + int(np.prod(weight_shape)), dtype=dtype).reshape(weight_shape)
    inputs = [helper.make_tensor_value_info("x", input_type, input_shape)]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["dot"])]
    last = "dot"
    for i in range(1, n_inputs):
        inputs.append(helper.make_tensor_value_info(f"x{i}", input_type, input_shape))
        nodes.append(helper.make_node("MatMul", [f"x{i}", "w"], [f"dot{i}"]))
    nodes.append(helper.make_node("Cast", [last], ["y"], to=output_type))
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [helper.make_tensor_value_info("y", output_type, output_shape)],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def test_scores_equal_the_python_package() -> None:
    arrays = perfect_forest(3, 30, 5, 12)
    content = onnx_forest(arrays)
    rows = hard_rows(arrays, np.random.default_rng(0), 200)
    session = onnxruntime.InferenceSession(content)
    want = np.concatenate(
        [np.asarray(session.run(None, {"x": row[None]})[0]).ravel() for row in rows]
    )
    got = OnnxModel(content, n_features=12).score(rows)
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))


def test_one_dimensional_output_and_fixed_batch_of_one() -> None:
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["raw"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("raw", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array([1]), "axis")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    engine = OnnxModel(model.SerializeToString(), n_features=3)
    rows = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
    assert engine.score(rows).tolist() == [6.0, 15.0]


def test_every_thread_scores_with_tensors_of_its_own() -> None:
    arrays = perfect_forest(3, 30, 5, 12)
    engine = OnnxModel(onnx_forest(arrays), n_features=12, n_threads=4)
    rows = [np.random.default_rng(i).normal(size=(300, 12)).astype(np.float32) for i in range(4)]
    want = [engine.score(r) for r in rows]
    got: list[Any] = [None] * 4

    def run(i: int) -> None:
        for _ in range(5):
            got[i] = engine.score(rows[i], thread=i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        np.testing.assert_array_equal(got[i], want[i])
    for bad in (4, -1):
        with pytest.raises(ModelError, match="failed with code -1"):
            engine.score(rows[0], thread=bad)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot load the model"),
        (b"not a model at all", "cannot load the model"),
        (KNOWN_GRAPH[:60], "cannot load the model"),
        (
            affine(input_shape=["N", 3], output_shape=["N", 1], weight_shape=(3, 1)),
            r"\[N, 3\]; \[N, 2",
        ),
        (affine(input_shape=[2], output_shape=[1]), r"input has shape \[2\]; \[N, 2\] is needed"),
        (affine(input_shape=[5, 2], output_shape=[5, 1]), r"\[5, 2\]; \[N, 2\] is needed"),
        (
            affine(input_shape=["N", 2], output_shape=["N", 3], weight_shape=(2, 3)),
            r"first output has shape \[N, 3\]; \[N\] or \[N, 1\] is needed",
        ),
        (
            affine(input_shape=["N", 2], output_shape=["N", 1], input_type=TensorProto.DOUBLE),
            "the model's input is not a float32 tensor",
        ),
        (
            affine(input_shape=["N", 2], output_shape=["N", 1], output_type=TensorProto.DOUBLE),
            "the model's output is not a float32 tensor",
        ),
        (
            affine(input_shape=["N", 2], output_shape=["N", 1], n_inputs=2),
            "the model has 2 inputs; one float32 matrix is needed",
        ),
    ],
)
def test_models_that_do_not_fit(content: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        OnnxModel(content, n_features=2)


def test_a_model_that_cannot_score_is_refused_when_it_is_made() -> None:
    # Declares one output value per row and makes two: only a run can tell.
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Add", ["shape", "one"], ["more"]),
        helper.make_node("ConstantOfShape", ["more"], ["raw"]),
    ]
    content = one_node_model(nodes, 2, one=np.array([1, 0]))
    with pytest.raises(ModelError, match=r"cannot score a row of zeros|cannot load"):
        OnnxModel(content, n_features=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_features": 0}, "0 features"),
        ({"n_features": 1025}, "1025 features"),
        ({"n_features": 2, "n_threads": 0}, "0 threads"),
        ({"n_features": 2, "n_threads": 65}, "65 threads"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        OnnxModel(KNOWN_GRAPH, **arguments)


def test_the_library_is_the_wheels() -> None:
    assert Path(library_path()).is_file()
    assert library_version() == version("onnxruntime")
    OnnxModel(KNOWN_GRAPH, n_features=2, library=library_path())
    assert library_version() == version("onnxruntime")


def test_the_known_graph_is_what_its_comment_says() -> None:
    model = onnx.load_from_string(KNOWN_GRAPH)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert numpy_helper.to_array(model.graph.initializer[0]).tolist() == [[2.0], [-0.5]]


def test_a_second_library_is_refused(tmp_path: Path) -> None:
    OnnxModel(KNOWN_GRAPH, n_features=2)
    other = tmp_path / "libonnxruntime.so"
    other.write_bytes(b"")
    with pytest.raises(RuntimeLibraryError, match="is loaded already"):
        OnnxModel(KNOWN_GRAPH, n_features=2, library=str(other))


def in_a_fresh_process(code: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    if home is not None:
        environment = {**environment, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
        # Signs of a build machine switch reporting off too: the test must not rely on them.
        for sign in ("CI", "GITHUB_ACTIONS", "BUILD_ID", "TF_BUILD"):
            environment.pop(sign, None)
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        cwd=Path(__file__).parents[2],
    )


def test_reports_to_nobody(tmp_path: Path) -> None:
    done = in_a_fresh_process(
        "import os\n"
        "from fastpath.onnx import KNOWN_GRAPH, OnnxModel\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "OnnxModel(KNOWN_GRAPH, n_features=2)\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n",
        home=tmp_path,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr
    assert list(tmp_path.rglob("*")) == []


def test_trimming_gives_memory_back_and_leaves_everything_working() -> None:
    done = in_a_fresh_process(
        "import numpy as np\n"
        "from fastpath.onnx import KNOWN_GRAPH, OnnxModel, trim_library\n"
        "def rss():\n"
        "    return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "assert trim_library() == 0\n"
        "model = OnnxModel(KNOWN_GRAPH, n_features=2)\n"
        "before = rss()\n"
        "assert trim_library() > 1 << 20\n"
        "print(before - rss())\n"
        "rows = np.array([[3, 4], [1, 0]], dtype=np.float32)\n"
        "print(model.score(rows).tolist())\n"
        "print(OnnxModel(KNOWN_GRAPH, n_features=2).score(rows).tolist())\n"
    )
    assert done.returncode == 0, done.stderr
    freed_bytes, first, second = done.stdout.splitlines()
    assert int(freed_bytes) > 4 << 20
    assert first == second == "[4.0, 2.0]"


@pytest.mark.parametrize(
    ("library", "message"),
    [
        ("/nowhere/libonnxruntime.so", "cannot load onnxruntime: .*nowhere"),
        ("libm", "is not onnxruntime: it has no OrtGetApiBase"),
    ],
)
def test_libraries_that_are_not_onnxruntime(library: str, message: str) -> None:
    # A process has one runtime, and this one has it already.
    if library == "libm":
        library = next(
            line.split()[-1]
            for line in Path("/proc/self/maps").read_text().splitlines()
            if "/libm.so" in line or "/libm-" in line
        )
    done = in_a_fresh_process(
        "from fastpath.onnx import KNOWN_GRAPH, OnnxModel, library_path\n"
        "from fastpath.errors import RuntimeLibraryError\n"
        "try:\n"
        f"    OnnxModel(KNOWN_GRAPH, n_features=2, library={library!r})\n"
        "except RuntimeLibraryError as error:\n"
        "    print(error)\n"
        "OnnxModel(KNOWN_GRAPH, n_features=2)\n"
        "print('recovered')\n"
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert re.search(message, first)
    assert second == "recovered"


def test_does_not_import_the_python_package() -> None:
    done = in_a_fresh_process(
        "import sys\n"
        "from fastpath.onnx import KNOWN_GRAPH, OnnxModel\n"
        "OnnxModel(KNOWN_GRAPH, n_features=2)\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('onnxruntime', 'onnx', 'google')])\n"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_models_come_and_go() -> None:
    """Memory is given back: sixty sessions that stayed would show."""
    content = onnx_forest(perfect_forest(0, 40, 6, 5))

    def resident_bytes() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096

    for _ in range(10):
        OnnxModel(content, n_features=5, n_threads=3)
    before = resident_bytes()
    for _ in range(60):
        OnnxModel(content, n_features=5, n_threads=3)
    assert resident_bytes() - before < 60 * len(content) / 4
