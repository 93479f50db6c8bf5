"""Profiles: callgrind's dumps, perf's samples, the flame graph and the history of commits."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest

from bench import history, profile
from bench.callgrind import ProfileError, differences, read_dump, readable, room_of, summed, tool
from bench.errors import ResultError
from bench.flamegraph import COLOURS, Tree, frame_of, read_script, render, rooted

HTTP2 = "/opt/fastpath/http2.cpython-311-x86_64-linux-gnu.so"
NGHTTP2 = "/usr/lib/x86_64-linux-gnu/libnghttp2.so.14.24.1"

# As valgrind 3.19 writes it: names once, numbers afterwards, positions relative to the last one.
DUMP = f"""\
# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 77
cmd:  python -m server echo
part: 2

thread: 2

positions: line
events: Ir
summary: 153

ob=(1) {HTTP2}
fl=(1) build/http2.c
fn=(1) __pyx_f_8fastpath_5http2_connection_receive
120 10
+3 5
cob=(2) {NGHTTP2}
cfi=(2) ???
cfn=(2) nghttp2_session_mem_recv
calls=4 0
* 130
-1 2
fi=(3) include/header.h
7 1

ob=(2)
fl=(2)
fn=(2)
0 100
cob=(1)
cfi=(1)
cfn=(3) __pyx_f_8fastpath_5http2_on_header
calls=8 +20
0 30
fn=(4) 0x00000000000188b0
0 5

ob=(1)
fl=(1)
fn=(3)
200 30

totals: 153
"""


def test_a_dump_adds_up_to_its_own_total() -> None:
    costs = read_dump(DUMP.splitlines(keepends=True))
    assert costs == {
        (HTTP2, "__pyx_f_8fastpath_5http2_connection_receive"): 18,
        (NGHTTP2, "nghttp2_session_mem_recv"): 100,
        (NGHTTP2, "0x00000000000188b0"): 5,
        (HTTP2, "__pyx_f_8fastpath_5http2_on_header"): 30,
    }
    assert costs.total() == 153


@pytest.mark.parametrize("text", ["", "hello\n", "events: Cycles\nfn=(1) f\n1 2\n"])
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(ProfileError, match="no callgrind dump"):
        read_dump(text.splitlines())


def test_set_up_cancels_and_the_busiest_thread_is_the_loop() -> None:
    # 1,000 instructions of set-up, 7 per call; another thread ticks.
    short = {"01": Counter({("a", "main"): 900}), "02": Counter({("b", "f"): 1_000 + 7 * 100})}
    long = {"01": Counter({("a", "main"): 950}), "02": Counter({("b", "f"): 1_000 + 7 * 400})}
    thread, costs = differences(short, long, 300)
    assert thread == "02"
    assert costs == {("b", "f"): 7.0}


def test_a_function_that_only_the_long_load_reached_counts() -> None:
    short = {"01": Counter({("a", "f"): 10})}
    long = {"01": Counter({("a", "f"): 30, ("a", "g"): 50})}
    assert differences(short, long, 10)[1] == {("a", "f"): 2.0, ("a", "g"): 5.0}


def test_a_server_that_was_not_called_is_an_error() -> None:
    same = {"01": Counter({("a", "f"): 10})}
    with pytest.raises(ProfileError, match="no thread did more"):
        differences(same, same, 10)


def test_repetitions_are_averaged_by_room_and_function() -> None:
    first = {(HTTP2, "__pyx_f_8fastpath_5http2_on_header"): 30.0, (NGHTTP2, "0x00000188b0"): 100.0}
    second = {(HTTP2, "__pyx_f_8fastpath_5http2_on_header"): 34.0, (NGHTTP2, "0x00000188b0"): 104.0}
    rooms, functions = summed([first, second])
    assert rooms == {"libnghttp2": 102.0, "fastpath.http2": 32.0}
    assert functions == {"libnghttp2.(188b0)": 102.0, "fastpath.http2.on_header": 32.0}
    assert list(rooms) == ["libnghttp2", "fastpath.http2"], "the dearest first"


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("__pyx_f_8fastpath_5http2_on_header", "on_header"),
        ("__pyx_f_8fastpath_6engine__score_batch", "_score_batch"),
        ("__pyx_f_8fastpath_7reactor_wait.isra.0", "wait"),
        ("__pyx_f_8fastpath_4wire_decode_dense.part.0", "decode_dense"),
        ("nghttp2_session_mem_send", "nghttp2_session_mem_send"),
        ("__pyx_f_9", "__pyx_f_9"),
    ],
)
def test_mangled_names_become_readable(symbol: str, name: str) -> None:
    assert readable(symbol) == name


def test_objects_become_rooms() -> None:
    assert room_of(HTTP2) == "fastpath.http2"
    assert room_of(NGHTTP2) == "libnghttp2"
    assert room_of("???") == "???"


def test_a_missing_tool_names_the_line_that_installs_it() -> None:
    with pytest.raises(ProfileError, match=r"no-such-tool is missing; .*apt-get install -y x"):
        tool("no-such-tool", "apt-get install -y x")


def test_the_command_ends_with_1_where_a_tool_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert profile.main(["--flamegraph"]) == 1
    assert "perf is missing; on Debian: apt-get install -y linux-perf" in capsys.readouterr().err
    assert profile.main([]) == 1
    assert "valgrind is missing" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--calls", "7"], ["--seconds", "0"], ["--seconds", "nan"]])
def test_the_command_refuses_sizes_that_measure_nothing(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        profile.main(wrong)
    assert ended.value.code == 2


# As perf 6.1 prints `-F comm,tid,ip,sym,dso`: innermost frame first, a blank line after each.
SAMPLES = f"""\
scoregate-loop0 16228
\t           1a905 [unknown] ({NGHTTP2})
\t           11e05 [unknown] ({NGHTTP2})
\t           11fda nghttp2_session_mem_recv ({NGHTTP2})
\t            44a9 __pyx_f_8fastpath_5http2_connection_receive ({HTTP2})
\tffffffffffffffff [unknown] ([unknown])

python 16227
\t            1000 _PyEval_EvalFrameDefault (/usr/bin/python3.11)

scoregate-loop0 16228
\tffffffff82010ddb tcp_sendmsg ([kernel.kallsyms])
\t          10aba4 __send (/usr/lib/x86_64-linux-gnu/libc.so.6)
\t            4152 __pyx_f_8fastpath_7reactor_loop_run+0x12 (/opt/fastpath/reactor.cpython-311-x.so)

scoregate-loop0 16228
\tffffffff82010ddb tcp_sendmsg ([kernel.kallsyms])
\t          10aba4 __send (/usr/lib/x86_64-linux-gnu/libc.so.6)
\t            4152 __pyx_f_8fastpath_7reactor_loop_run (/opt/fastpath/reactor.cpython-311-x.so)
"""


def test_samples_become_stacks_of_the_wanted_thread() -> None:
    stacks = list(read_script(SAMPLES.splitlines(), "scoregate-loop"))
    sending = (("fastpath", "reactor.loop_run"), ("other", "__send"), ("kernel", "tcp_sendmsg"))
    assert stacks == [
        (
            ("fastpath", "http2.connection_receive"),
            ("nghttp2", "nghttp2_session_mem_recv"),
            ("nghttp2", "nghttp2 (internal)"),
        ),
        sending,
        sending,
    ]


def test_every_kind_of_frame_has_a_colour() -> None:
    frames = [
        frame_of("tcp_ack", "[kernel.kallsyms]"),
        frame_of("on_header", HTTP2),
        frame_of("x", NGHTTP2),
        frame_of("_PyEval_EvalFrameDefault", "/usr/bin/python3.11"),
        frame_of("[unknown]", "/usr/lib/libssl.so.3"),
        frame_of("__vdso_clock_gettime", "[vdso]"),
    ]
    assert [frame[0] for frame in frames if frame] == [
        *("kernel", "fastpath", "nghttp2", "python", "other", "other")
    ]
    assert {frame[0] for frame in frames if frame} <= set(COLOURS)
    assert frame_of("[unknown]", "[unknown]") is None


def test_callers_of_the_root_are_cut_off() -> None:
    a, b, c = ("python", "call"), ("fastpath", "loop_run"), ("kernel", "send")
    assert list(rooted([(a, b, c), (a, c), (b,)], "loop_run")) == [(b, c), (a, c), (b,)]


def test_common_beginnings_fold() -> None:
    tree = Tree()
    for stack in read_script(SAMPLES.splitlines(), "scoregate-loop"):
        tree.add(stack)
    assert tree.n == 3
    assert tree.depth == 3
    assert {name: child.n for (_, name), child in tree.children.items()} == {
        "http2.connection_receive": 1,
        "reactor.loop_run": 2,
    }


def test_the_picture_is_whole_and_proportional() -> None:
    stacks = list(read_script(SAMPLES.splitlines(), "scoregate-loop"))
    picture = render(stacks, "echo & <score>")
    root = ElementTree.fromstring(picture)
    svg = "{http://www.w3.org/2000/svg}"
    frames = {group.attrib["data-n"]: group for group in root.iter(f"{svg}g")}
    assert len(frames) == 1 + 3 + 3
    widths = {name: float(group[1].attrib["width"]) for name, group in frames.items()}
    assert widths["reactor.loop_run"] == pytest.approx(widths["all"] * 2 / 3, abs=0.02)
    assert widths["tcp_sendmsg"] == widths["reactor.loop_run"]
    tooltip = frames["tcp_sendmsg"][0].text
    assert tooltip is not None
    assert "66.67%" in tooltip
    # A child stands on its parent and within it.
    for inner, outer in (("tcp_sendmsg", "__send"), ("http2.connection_receive", "all")):
        a, b = frames[inner][1].attrib, frames[outer][1].attrib
        assert float(a["y"]) < float(b["y"])
        assert float(a["x"]) >= float(b["x"]) - 0.01
        assert float(a["x"]) + float(a["width"]) <= float(b["x"]) + float(b["width"]) + 0.02
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "").replace("http2", "")
    assert picture == render(stacks, "echo & <score>")


def test_no_sample_is_an_error() -> None:
    with pytest.raises(ProfileError, match="no sample"):
        render([], "x")


def test_history_appends_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "history.jsonl"
    assert history.read(path) == []
    first = history.append("instructions", {"echo": 13_437.0, "score": 20_421.5}, path)
    second = history.append("bench", {"cpu_ratio": 1.04}, path)
    third = history.append("instructions", {"echo": 13_000.0}, path)
    assert history.read(path) == [first, second, third]
    assert history.latest(history.read(path), "instructions") == third
    assert history.latest(history.read(path), "nothing") is None
    assert json.loads(path.read_text().splitlines()[0])["values"]["echo"] == 13_437.0


@pytest.mark.parametrize("line", ["{", "[]", '{"taken": "x"}', '{"values": {"a": "b"}}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "history.jsonl"
    history.append("bench", {"a": 1.0}, path)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ResultError, match=r"history\.jsonl, line 2"):
        history.read(path)
