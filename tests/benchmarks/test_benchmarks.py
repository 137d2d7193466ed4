"""What would tell a reader something false: times, ratios, equal numbers, sentences."""

import json
import pathlib
import re
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks import cases, claims, gpu, report, results, rounds, timing
from benchmarks.built import LeftOutError
from benchmarks.data import make_data
from benchmarks.peers import patterns
from benchmarks.worker import CheckoutFinder, Worker

ROOT = pathlib.Path(__file__).parents[2]

# The peers that the environment of the tests has: not Keras, PyTorch and TensorFlow.
PEERS = [("jaxrnn", "xla"), ("jaxrnn", "batched"), ("scan", ""), ("linen", "")]
PEERS += [("nnx", ""), ("haiku", ""), ("by_hand", "")]
PEERS += [("recurrences", run) for run in ("scan", "chunked", "associative")]
SMALL = [*cases.RACE["smoke"], *cases.RECURRENCES["smoke"], *cases.VERSIONS["smoke"]]


@pytest.mark.slow
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_all_peers_compute_the_same_numbers(users_settings, case):
    """Every variant of a peer, not only the one that races."""
    [ours] = checksums("jaxrnn", "", case)
    others = [sums for peer in PEERS for sums in checksums(*peer, case)]
    assert len(others) >= (1 if case.run or case.cell == "rglru" else 2)
    for sums in others:
        assert results.deviation(sums, ours) < cases.TOLERANCE


def checksums(peer, run, case):
    """The checksums of the peer's variants; none if the peer leaves the case out."""
    try:
        variants = [
            make() for make in Worker(peer, run, str(ROOT)).build(case).values()
        ]
    except LeftOutError:
        return []
    return [results.checksums(one.read(one.run())) for one in variants]


def test_small_patterns_have_resets_in_the_middle_of_their_parts():
    with_resets = [case for case in cases.RACE["smoke"] if case.lengths == "resets"]
    assert len(with_resets) == 5
    for case in with_resets:
        parts = np.split(make_data(case).resets, [case.burn_in], axis=1)
        assert all(part[:, 1:].any() for part in parts if part.size), case.name


def test_a_replay_has_no_gradient_before_its_window():
    def run(params, inputs, state, resets):
        del params, resets
        outputs = state + 2 * inputs
        return outputs, outputs[-1]

    case = cases.Case("gru", 1, 6, 1, 1, lengths="resets", pattern="replay")
    replay = patterns.around(case, run)
    loss = lambda x, state: replay(None, x, state, np.zeros(6, bool))[0].sum()
    x, state = np.arange(6, dtype=np.float32), np.float32(1)
    by_inputs, by_state = jax.grad(loss, (0, 1))(x, state)
    assert (by_inputs.tolist(), by_state) == ([0, 0, 2, 2, 2, 2], 0)


@pytest.mark.slow
def test_two_versions_as_a_user_compares_them(tmp_path, fast_to_compile):
    old = tmp_path / "old"
    old.mkdir()
    (old / "jaxrnn").symlink_to(ROOT / "jaxrnn")
    where = ["--preset", "smoke", "--only", "raw_rnn", "--rounds", "1"]
    call = [sys.executable, "-m", "benchmarks", "versions", "--old", old, *where]
    done = subprocess.run([*call, "--out", tmp_path], cwd=ROOT, stdout=subprocess.PIPE)
    assert done.returncode == 0
    [row] = json.loads((tmp_path / "versions_smoke.json").read_text())["cases"]
    same = {"reference": "jaxrnn", "deviation": 0, "same": True}
    assert row["peers"]["jaxrnn_old"]["agreement"] == same
    assert row["peers"]["jaxrnn_old"]["ratios"]["temp_bytes"] == [1, 1, 1, 1, 1]


def test_a_checkout_brings_its_own_jaxrnn(tmp_path):
    (tmp_path / "jaxrnn").mkdir()
    (tmp_path / "jaxrnn" / "__init__.py").touch()
    finder = CheckoutFinder(str(tmp_path))
    assert finder.find_spec("jaxrnn").origin.startswith(str(tmp_path))
    assert finder.find_spec("jax") is None


def test_a_time_is_the_median_of_the_calls_after_the_first(monkeypatch):
    seconds = iter([9e-3, 1e-3, 2e-3, 7e-3, 90e-3])
    monkeypatch.setattr(timing, "timed", lambda run: (None, next(seconds)))
    assert timing.measure(None, 10e-3) == 2
    assert (
        timing.measure(None, 50e-3) == 90
    )  # A call that takes longer is the only one.


class FakePeer:
    """Answers as a process."""

    def __init__(self, *answers):
        self.answers = iter(answers)

    def ask(self, do, **request):
        prepared = {"variant": "", "sums": {"outputs": [1.0, 2.0]}}
        facts = {"facts": {"temp_bytes": 8}}
        return next(self.answers) if do == "time" else prepared | facts


def test_a_ratio_is_of_one_round_and_a_peer_that_fails_loses_its_rounds(monkeypatch):
    monkeypatch.setattr(rounds, "wait_for_quiet", lambda: 0.5)
    peers = {
        "first": FakePeer({"ms": 1.0}, {"ms": 3.0}),
        "other": FakePeer({"ms": 0.5}, {"ms": 9.0}),
        "bad": FakePeer({"ms": 1.0}, {"failed": "it fell"}),
    }
    row = rounds.run_case(cases.RACE["smoke"][0], peers, {"time": 2})
    assert (row["rounds"], row["busy"]) == (2, 2)
    assert row["peers"]["first"]["numbers"]["ms"] == [1.0, 1.5, 2.0, 2.5, 3.0]
    # By round: 0.5 and 3.
    assert row["peers"]["other"]["ratios"]["ms"] == [0.5, 1.125, 1.75, 2.375, 3.0]
    assert row["peers"]["bad"] == {"failed": "it fell"}


def test_other_numbers_are_marked():
    for tolerance, is_same in (0.2, True), (0.05, False):
        found = {"a": {"sums": {"y": [1.0, 1.0]}}, "b": {"sums": {"y": [1.0, 1.1]}}}
        rounds.agree(found, tolerance)
        assert found["b"]["agreement"]["same"] == is_same
    exact = {"y": [1.0, 1.0]}
    assert results.deviation(exact, {"y": [1.0, 1.0], "z": [0.0, 0.0]}) == np.inf
    assert not results.deviation({"y": [1.0, np.nan]}, exact) <= 1


def ran(*ratio, ms=2.0, same=True):
    """A contestant with this time, and this ratio or its quartiles."""
    low, middle, high = ratio if len(ratio) > 1 else 3 * ratio
    agreement = {"reference": "jaxrnn", "deviation": 0.5, "same": same}
    by_name = {"numbers": [0, 0, ms, 99, 99], "ratios": [0.0, low, middle, high, 9.0]}
    found = {name: {"ms": spread} for name, spread in by_name.items()}
    return {"variant": "", "agreement": agreement} | found


def test_a_table_has_a_time_and_the_ratios_to_it():
    case = cases.RACE["smoke"][0]
    failed = {"failed": "RESOURCE_EXHAUSTED: of 99 bytes\nand more"}
    peers = {"jaxrnn": ran(1.0, ms=20.0), "scan": failed, "linen": ran(1.5)}
    peers["torch"] = ran(0.375, 0.5, 0.75, same=False)
    row = {"name": case.name, "case": vars(case), "peers": peers}
    text = "\n".join(report.mode_tables([row], [*peers], [report.TIME]))
    assert "| case | jaxrnn, ms | scan | linen | torch |" in text
    assert f"| {case.label} | 20 | failed | 1.50 | 0.50 (0.38-0.75)† |" in text


# What the pages say.


def test_the_pages_say_what_the_results_say():
    found = claims.measured()
    for page in claims.PAGES:
        text = page.read_text()
        assert claims.replaced(text, found) == text, "run `python -m benchmarks.claims`"
        assert "<!-- race: " in text


def test_results_name_their_commit_and_have_the_cases_of_today():
    for file in claims.RESULTS.glob("*.json"):
        result = json.loads(file.read_text())
        assert re.fullmatch("[0-9a-f]{7,}", result["commits"]["jaxrnn"]), file
        names = {case.name for case in cases.RACE[file.stem.split("_")[1]]}
        assert {row["name"] for row in result["cases"]} <= names, file


# Times, ratios and sizes in sentences. What else pages say of them has another source.
NUMBER = re.compile(r"[\d.,]+ (?:[mµ]s|[MG]iB|times as (?:long|fast|many|much))\b")
OTHER = {
    "README.md": {"556 ms", "819 ms", "16.4 ms", "77.9 ms"},  # Of the examples' pages.
    "docs/guide/long_sequences.md": {"219 MiB", "5.6 MiB", "62.5 MiB"},
    "docs/guide/recurrences.md": {"22 MiB", "1,367 MiB"},
}


def test_times_on_pages_come_from_results():
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        name = str(page.relative_to(ROOT))
        text = claims.MARKED.sub("", page.read_text())
        text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
        found = set(NUMBER.findall(" ".join(text.split())))
        if "_build" not in page.parts and "names" not in page.parts:
            assert found <= OTHER.get(name, set()), name


def test_sentences_count_and_name_the_cases():
    def measured(units, mode="train", pattern="", lengths="dense", **ratios):
        case = {"lengths": lengths, "mode": mode, "pattern": pattern, "units": units}
        peers = {name: ran(ratio) for name, ratio in ratios.items()}
        row = {"name": f"lstm H{units}", "case": case, "peers": peers}
        return claims.Measured("page", "CPU with AVX2, commit abc, today", row)

    found = [
        measured(512, torch=0.5, haiku=1.5, jaxrnn_xla=2.0),
        measured(320, torch=0.996, linen=2.0, nnx=1.5, jaxrnn_xla=3.0),
        measured(256, torch=0.9),
        measured(128, by_hand=0.75, pattern="rollout"),
        measured(64, by_hand=4.0, pattern="rollout", mode="forward", jaxrnn_xla=9.0),
        measured(128, by_hand=2.0, pattern="scanned"),
        measured(128, by_hand=3.0, pattern="scanned", mode="forward"),
        measured(16, lengths="short", torch=15.0, jaxrnn_xla=8.0),
    ]
    text = {name: function(found) for name, function in claims.TEXTS.items()}
    assert text["losses"] == (
        "In some cases, jaxrnn takes longer: up to 1.33 times as long as hand-written "
        "loops if each call runs only one step, and up to 2.00 times as long as "
        "PyTorch on some layers of 256 units or more."
    )
    assert text["without_native"] == (
        "Without native loops, jaxrnn takes 2.00 to 3.00 times as long on large "
        "layers, and 8.00 times as long on padded layers."
    )
    assert "takes 4.00 times as long at inference and 0.75 times" in text["rollouts"]
    assert "*Large* layers have 128 to 512 units (CPU); *small*" in text["sizes"]
    flax, torch = text["ranges"].splitlines()[3], text["ranges"].splitlines()[-1]
    assert flax == "| Flax | 1.50 (1.50 to 1.50) | - | - | - | 0 of 1 cases |"
    assert torch.startswith("| PyTorch | 0.90 (0.50 to 1.00) | - | - | 15.0 (15.0 to")
    assert torch.endswith("| 2 of 4 cases |")
    assert text["conditions"] == "CPU with AVX2, commit abc, today."


# `python -m benchmarks gpu`


@pytest.mark.fast("nan")
@pytest.mark.parametrize("wrong", [1.01, np.nan])
def test_a_check_of_a_gpu_fails_if_a_number_is_wrong(wrong):
    cell = gpu.jaxrnn.GRUCell(gpu.SIZE)
    run = lambda *args: jax.tree.map(lambda x: wrong * x, gpu.dynamic(*args))
    with pytest.raises(ValueError, match="the results deviate by"):
        gpu.check(cell, run, gpu.scan)


@pytest.mark.slow
def test_the_small_page_of_a_gpu(monkeypatch, users_settings, tmp_path):
    """It has no failure on a CPU; a failure is on the page and in the exit status."""
    monkeypatch.setattr(rounds, "LOOKS", 1)  # Other tests keep the machine busy.
    options = SimpleNamespace(small=True, out=tmp_path / "page.md")
    status, page = gpu.run(options), options.out.read_text()
    assert (status, "**Nothing failed.**" in page) == (0, True), page
    assert "| lstm B3 T8 D4 H5 dense |" in page
    monkeypatch.setattr(gpu, "checks", lambda: [("a cell", None, None, None)])
    monkeypatch.setattr(gpu, "races", lambda small: [])
    assert gpu.run(options) == 1
    assert "**1 failed.**\n- a cell: AttributeError" in options.out.read_text()
