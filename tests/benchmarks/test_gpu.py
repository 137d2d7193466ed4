"""`python -m benchmarks gpu`: small sizes on a CPU, and how it handles failures."""

import re
from types import SimpleNamespace

import pytest
from helpers import usual_promotion
from jax.experimental import rnn

import benchmarks.__main__ as command
from benchmarks import cases, gpu, gpu_page, peers, results, rounds
from benchmarks.data import make_data
from benchmarks.peers import jax_rnn, scan

from .test_benchmarks import ran


def cells(page, first):
    """The cells of the table row that starts with this text."""
    [line] = [line for line in page.splitlines() if line.startswith(f"| {first} |")]
    return line.strip("| ").split(" | ")[1:]


@pytest.mark.slow
def test_small(monkeypatch, fast_to_compile, tmp_path):
    monkeypatch.setattr(rounds, "LOOKS", 1)  # Other tests keep the machine busy.
    with pytest.raises(SystemExit) as end:
        command.main(["gpu", "--small", "--out", str(tmp_path / "page.md")])
    page = (tmp_path / "page.md").read_text()
    assert end.value.code == 0, page
    assert "**This page is not from a GPU.**" in page
    assert "**Nothing failed.**" in page
    assert cells(page, "goldens") == ["3"]
    assert cells(page, "laws, LSTMCell") == ["2"]
    assert page.count("same numbers: yes") >= 3
    [temporary] = re.findall(r"### Temporary memory.*?\n\| lstm.*?\n", page, re.DOTALL)
    keep, recompute, _ = map(float, cells(temporary, "lstm B2 T64 D4 H8 dense final"))
    assert recompute < keep / 2
    assert re.search(r"\n- jla: (it is for JAX|No module named)", page)
    assert "- jax_rnn in 1 of 3 cases (lstm B3 T8 D4 H5 dense train): " in page


def test_without_a_gpu_it_says_how_to_go_on(monkeypatch, tmp_path):
    answer = {"platform": "cpu", "facts": {}, "versions": {}}
    cpu = SimpleNamespace(ask=lambda do, **request: answer, close=lambda: None)
    monkeypatch.setattr(gpu, "Process", lambda *args, **options: cpu)
    out = tmp_path / "page.md"
    with pytest.raises(SystemExit, match=r"no NVIDIA GPU here .*With --small"):
        command.main(["gpu", "--out", str(out)])
    assert not out.exists()


def made_up(**outcomes):
    """A result with a race in which the contestants had these outcomes."""
    case, late = cases.GPU_TIMES["full"][:2]
    row = {"name": case.name, "case": vars(case), "peers": outcomes}
    race = {"names": [*outcomes], "todo": [late], "versions": {}, "missing": {}}
    race["cases"] = [row | {"rounds": 1, "busy": 0}]
    result = gpu._new_result("full") | {"platform": "gpu", "seconds": 1.0}
    return result | {"races": {"times": race}}


def test_failures_are_on_the_page_and_the_rest_too():
    result = made_up(
        jaxrnn=ran(1.0),
        scan=ran(1.0, same=False),
        linen={"failed": "RESOURCE_EXHAUSTED: much\nmemory"},
        torch={"missing": "No module named 'torch'"},
    )
    name, late = (case.name for case in cases.GPU_TIMES["full"][:2])
    missing = {"torch": "No module named 'torch'", "haiku": "no answer in 60 s"}
    result["races"]["times"]["missing"] = missing
    result["errors"] = ["memory: RuntimeError: no"]
    result["checks"] = [
        {"part": "laws", "name": "GRUCell: resumes", "answer": {"failed": "\nno\n1"}},
        {"part": "laws", "name": "GRUCell: is_a_value", "answer": {}},
        {"part": "goldens", "name": "gru"},
        {"part": "goldens", "name": "lstm"},
    ]
    assert gpu_page.failures(result) == [
        "memory: RuntimeError: no",
        "laws, GRUCell: resumes: no 1",
        "haiku: no answer in 60 s",
        f"scan, {name}: the results deviate by 5e-01 from jaxrnn",
        f"linen, {name}: out of memory",
    ]
    page = gpu_page.write(result)
    assert "**5 failed, see below.**" in page
    assert "not from a GPU" not in page
    assert cells(page, "laws, GRUCell") == ["1", "1", "-"]
    times = cells(page, "lstm B64 T256 D256 H512 dense")
    assert times == ["1", "1.00†", "failed", "missing"]
    for line in (
        "- goldens, 2 of the checks: no time was left",
        "- torch: No module named 'torch'",
        f"- times, {late}: no time was left",
    ):
        assert line in page.splitlines()


def test_a_part_that_fails_does_not_stop_the_others(monkeypatch, capsys):
    def check(result, clock):
        raise RuntimeError("it fell")

    def race(part, result, clock):
        if part != "times":
            raise RuntimeError("it fell")
        result["races"] |= made_up(jaxrnn=ran(1.0))["races"]

    monkeypatch.setattr(gpu, "_check", check)
    monkeypatch.setattr(gpu, "_race", race)
    with pytest.raises(SystemExit) as end:
        command.main(["gpu", "--small"])
    assert end.value.code == 1
    page = capsys.readouterr().out
    for part in ("checks", "loops", "memory"):
        assert f"- {part}: RuntimeError: it fell" in page
    assert "| lstm B64 T256 D256 H512 dense | 1 |" in page


def test_each_part_of_the_checks_gets_on_if_time_is_short():
    names = {"laws": [*"abcd"], "goldens": ["e", "f"]}
    order = [check["name"] for check in gpu.ordered(names)]
    assert {*order[:2]} == {"a", "e"}
    assert order[2:] in (["b", "c", "f", "d"], ["b", "f", "c", "d"])


def test_no_case_starts_when_the_time_is_over(monkeypatch):
    monkeypatch.setattr(gpu, "SECONDS", 0)
    monkeypatch.setattr(gpu, "RACES", {"times": ([], cases.GPU_TIMES, {"time": 1})})
    gpu._race("times", result := gpu._new_result("small"), gpu.Clock())
    race = result["races"]["times"]
    assert (len(race["todo"]), race["cases"]) == (3, [])


def checksums(case, net):
    """The checksums of the results of a net, compiled for a CPU."""
    built = peers._jax.build(case, make_data(case), {"": net})
    variant = next(iter(built.variants.values()))()
    return results.checksums(variant.read(variant.run()))


@pytest.mark.slow
@pytest.mark.parametrize("lengths", ["dense", "uniform"])
def test_weights_for_cudnn_are_those_of_the_scan(monkeypatch, lengths):
    """JAX's reference replaces cuDNN."""

    def reference(x, h, c, weights, lengths, **sizes):
        dims = sizes["input_size"], sizes["hidden_size"], 1
        arrays = rnn.unpack_lstm_weights(weights, *dims, False)
        return rnn.lstm_ref(x, h, c, *arrays, lengths, *dims, 0.0, False)

    case = cases.Case("lstm", 3, 8, 4, 5, lengths)
    data = make_data(case)
    monkeypatch.setattr(rnn, "lstm", reference)
    with usual_promotion():
        got = checksums(case, jax_rnn.make_net(case, data))
        built = scan.build(case, data).variants[""]()
        want = results.checksums(built.read(built.run()))
    assert results.deviation(got, want) < 1e-5
