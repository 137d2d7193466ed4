"""The commands run, their contestants agree, and the tables say what was measured.

The last tests read the text of a compiled program: loops, collectives, work.
"""

import dataclasses
import json
import pathlib
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

import benchmarks.__main__ as command
from benchmarks import cases, claims, machine, peers, process, report, results, rounds
from benchmarks.compilers.hlo import Collective, Program, collectives
from benchmarks.compilers.program import work_of
from benchmarks.data import make_data
from benchmarks.peers import patterns
from benchmarks.worker import CheckoutFinder, Worker

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def run(monkeypatch, fast_to_compile, tmp_path):
    """A command with its smallest cases; the contestants have processes, as always."""
    monkeypatch.setattr(rounds, "LOOKS", 1)  # Beside other tests it is never quiet.

    def run(name, *arguments):
        where = ["--preset", "smoke", "--out", str(tmp_path), "--rounds", "1"]
        command.main([name, *where, *arguments])
        [file] = tmp_path.glob(f"{name}_smoke*.json")
        return json.loads(file.read_text())["cases"], file.with_suffix(
            ".md"
        ).read_text()

    return run


def agreeing(row):
    """The contestants that ran, with their equations; those of the same agree."""
    ran = {name: peer for name, peer in row["peers"].items() if "variant" in peer}
    assert all(peer["equation"] or peer["agreement"]["same"] for peer in ran.values())
    return {name: peer["equation"] for name, peer in ran.items()}


@pytest.mark.slow
def test_a_small_race(run):
    """Layers, and each pattern by hand."""
    names = {case.pattern for case in cases.RACE["patterns"]}
    one_mode = "^lstm B3.*train|^gru_after|^(rollout|bidirectional).*train"
    only = f"{one_mode}|^({'|'.join(names - {'rollout', 'bidirectional'})}) "
    rows, table = run("race", "--only", only, "--peers", "scan,linen,nnx,by_hand")
    assert {row["case"]["pattern"] for row in rows} == {"", *names}
    for row in rows:
        ran = agreeing(row)
        is_pattern = bool(row["case"]["pattern"])
        assert {*ran} == {"jaxrnn"} | (
            {"by_hand"} if is_pattern else {"scan", "linen", "nnx"}
        )
        assert {*ran.values()} == {""}
        assert len(row["peers"]["jaxrnn"]["numbers"]["ms"]) == 5
    assert "same numbers: yes" in table
    assert "| case | jaxrnn, MiB | scan | linen | nnx | by_hand |" in table
    assert "- scan in 14 of 16 cases (rollout" in table


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru_after", "gru", "lru", "mlstm"])
def test_a_model_mapped_over_rows_equals_the_batch(cell):
    """All of its forms by hand, not only the one that races."""
    from benchmarks.peers import by_hand, jaxrnn as ours

    case = cases.Case(cell, 3, 8, 8, 8, pattern="mapped")
    data = make_data(case)
    plain = dataclasses.replace(case, run="batched")
    built = ours.build(plain, data), ours.build(case, data), by_hand.build(case, data)
    with jax.numpy_rank_promotion("allow"):  # As in a contestant's process.
        variants = [make() for one in built for make in one.variants.values()]
    assert len(variants) == 2 + {"lstm": 4, "gru_after": 3, "gru": 1}.get(cell, 2)
    first, *others = (results.checksums(one.read(one.run())) for one in variants)
    assert all(results.deviation(one, first) < case.tolerance for one in others)


@pytest.mark.slow
def test_two_versions(run, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "jaxrnn").symlink_to(ROOT / "jaxrnn")
    rows, table = run("versions", "--old", str(tmp_path / "old"))
    assert [row["name"] for row in rows] == [c.name for c in cases.VERSIONS["smoke"]]
    for row in rows:
        new, old = row["peers"]["jaxrnn"], row["peers"]["jaxrnn_old"]
        if "native" in row["name"] and "left_out" in new:
            assert new == old
            assert new["left_out"].startswith("XLA's loops: ")
            continue
        same = {"reference": "jaxrnn", "deviation": 0, "same": True}
        assert old["agreement"] == same
        assert {"ms", "compile_ms", "trace_s"} <= old["numbers"].keys()
        assert old["ratios"]["temp_bytes"] == [1, 1, 1, 1, 1]
    assert "| case | time, ms | jaxrnn_old | time to compile, ms | jaxrnn_old " in table


@pytest.mark.slow
def test_the_memory_of_strategies_and_of_loops_by_hand(run):
    """`scan` needs the most, and is not run because it exceeds the limit."""
    names = ["Keep()", "Recompute()", "scan", "scan (parts)"]
    limit = ["--limit", "0.00005"]
    [row], table = run("memory", "--peers", ",".join(names), *limit)
    assert [*agreeing(row)] == ["Keep()", "Recompute()", "scan (parts)"]
    size = {n: ran["numbers"]["temp_bytes"][2] for n, ran in row["peers"].items()}
    assert size["Recompute()"] < size["Keep()"] / 2
    assert size["scan (parts)"] < size["scan"] / 2
    assert "ms" not in row["peers"]["scan"]["numbers"]
    mib = f"{size['Keep()'] / 2**20:.3g} | {size['Recompute()'] / 2**20:.3g} |"
    assert f"| {row['name']} | {mib}" in table
    assert re.search(r"- scan: needs [\d.e-]+ GB, more than 5e-05", table)


@pytest.mark.slow
def test_recurrences_and_the_same_by_hand(run):
    rows, table = run("recurrences", "--peers", "resets,chunked,scan,associative")
    by_hand = {"mlstm": ["chunked"], "gated_delta": [], "lru": ["associative"]}
    assert [row["case"]["cell"] for row in rows] == list(by_hand)
    for row in rows:
        by_cell = dict.fromkeys(by_hand[row["case"]["cell"]], "")
        wanted = {"jaxrnn": "", "resets": "resets", "scan": ""} | by_cell
        assert agreeing(row) == wanted
    for by_cell in "chunked | scan", "scan | associative":  # Forward; training.
        assert f"| case | jaxrnn, ms | resets | {by_cell} |" in table


@pytest.mark.slow
def test_as_a_user_starts_it_and_goes_on(tmp_path, fast_to_compile):
    only = ["--only", "^gru B", "--peers", "scan", "--rounds", "1"]
    start = ["-m", "benchmarks", "race", "--preset", "smoke", "--out", str(tmp_path)]
    texts = []
    for more in ([], ["--resume"]):
        call = [sys.executable, *start, *only, *more]
        done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        texts.append((tmp_path / f"race_smoke_{machine.file_name()}.json").read_text())
        assert "| gru B3 T8 D4 H5 dense | " in done.stdout
    assert texts[0] == texts[1]  # The case that is saved is not measured again.
    assert len(texts[0].splitlines()) == 3  # The case has one line.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["race", "--peers", "jaxrnn,caffe"], "unknown peer 'caffe'; known: jaxrnn"),
        (["race", "--only", "^mamba"], "no case matches '^mamba'; the cases:"),
        (["race", "--only", "("], "--only '(': "),
        (["race", "--python", "torch=nowhere"], "torch=nowhere: no such file"),
        (["race", "--rounds", "0"], "must be at least 1, got 0"),
        (["versions", "--old", "tests"], "--old tests: no folder jaxrnn in it"),
    ],
)
def test_wrong_arguments_name_what_there_is(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_names_of_cases_are_different():
    for one in command.COMMANDS.values():
        for preset in one.presets.values():
            names = [case.name for case in preset]
            assert len(set(names)) == len(names)


def test_small_patterns_have_resets_in_the_middle_of_their_parts():
    small = [case for case in cases.RACE["smoke"] if case.pattern]
    with_resets = [case for case in small if case.lengths == "resets"]
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


def test_peers_leave_out_what_they_do_not_run():
    [layer, *_], [*_, pattern] = cases.RACE["smoke"], cases.RACE["smoke"]
    for peer, run, case, reason in (
        ("scan", "", pattern, "scan has no patterns"),
        ("by_hand", "", layer, "only for patterns"),
        ("jaxrnn", "batched", layer, "only for models that are mapped over rows"),
    ):
        fields = dataclasses.asdict(case)
        answer = Worker(peer, run, str(ROOT)).prepare(fields, limit=1e9, choose=False)
        assert answer == {"left_out": reason}


@pytest.mark.slow
def test_a_checkout_brings_its_own_jaxrnn(tmp_path):
    (tmp_path / "jaxrnn").mkdir()
    (tmp_path / "jaxrnn" / "__init__.py").touch()
    finder = CheckoutFinder(str(tmp_path))
    assert finder.find_spec("jaxrnn").origin.startswith(str(tmp_path))
    assert finder.find_spec("jax") is None


def test_saved_cases_of_another_commit_are_not_kept(tmp_path):
    same = {"rounds": {"time": 1}, "machine": {}, "versions": {}}
    saved = {**same, "commits": {"jaxrnn": "abc"}, "cases": [{"name": "a"}]}
    command.save(saved, file := tmp_path / "new" / "a.json")
    assert command._saved_cases(file, saved) == [{"name": "a"}]
    with pytest.raises(SystemExit, match="the saved result has different commits"):
        command._saved_cases(file, saved | {"commits": {"jaxrnn": "def"}})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "failed"),
    [(signal.SIGKILL, "the process died: "), (signal.SIGSTOP, "no answer in 0 s")],
)
def test_a_process_that_died_or_hangs_is_started_again(users_flags, sent, failed):
    limits = iter([0.2, 60.0, 60.0])
    peer = process.Process(peers.Contestant("none", "none"), lambda: next(limits))
    try:
        peer._process.send_signal(sent)
        assert peer.ask("drop")["failed"].startswith(failed)
        assert "benchmarks.peers.none" in peer.ask("hello")["missing"]
        assert peer.ask("fly")["failed"].startswith("AttributeError: ")
    finally:
        peer.close()


class FakePeer:
    """Answers as a process."""

    def __init__(self, *answers):
        self.answers = iter(answers)

    def ask(self, do, **request):
        prepared = {"variant": "", "equation": "", "sums": {"outputs": [1.0, 2.0]}}
        facts = {"facts": {"temp_bytes": 8}}
        return next(self.answers) if do == "time" else prepared | facts


def test_a_peer_that_fails_loses_its_rounds(monkeypatch):
    monkeypatch.setattr(rounds, "wait_for_quiet", lambda: 0.5)
    good = FakePeer({"ms": 1.0}, {"ms": 3.0})
    half = FakePeer({"ms": 0.5}, {"ms": 9.0})
    bad = FakePeer({"ms": 1.0}, {"failed": "it fell"})
    [case] = cases.MEMORY["smoke"]
    fakes = {"good": good, "half": half, "bad": bad}
    row = rounds.run_case(case, fakes, {"time": 2})
    assert (row["rounds"], row["busy"]) == (2, 2)
    assert row["peers"]["good"]["numbers"]["ms"] == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert row["peers"]["good"]["numbers"]["temp_bytes"] == [8, 8, 8, 8, 8]
    # By round: 0.5 and 3.
    assert row["peers"]["half"]["ratios"]["ms"] == [0.5, 1.125, 1.75, 2.375, 3.0]
    assert row["peers"]["bad"] == {"failed": "it fell"}


def test_other_numbers_are_marked():
    def result(sum_, equation=""):
        return {"sums": {"a": [1.0, sum_]}, "equation": equation}

    found = {"a": result(1.0), "b": result(1.1), "c": result(3.0, "other")}
    rounds.agree(found, tolerance=0.2)
    assert found["b"]["agreement"]["same"]
    rounds.agree(again := {"a": result(1.0), "b": result(1.1)}, tolerance=0.05)
    assert not again["b"]["agreement"]["same"]
    assert found["c"]["agreement"]["reference"] is None


def ran(median, *ratio, same=True, equation=""):
    """A contestant with this time, and this ratio or its quartiles."""
    low, middle, high = ratio if len(ratio) > 1 else 3 * (ratio or (1.0,))
    agreement = {"reference": "jaxrnn", "deviation": 0.5, "same": same}
    result = {"variant": "", "equation": equation, "agreement": agreement}
    times, ratios = [0, 0, median, 99, 99], [0.0, low, middle, high, 9.0]
    sizes = {"numbers": [0, 0, 2**20, 0, 0], "ratios": 5 * [1.0]}
    by_name = {"numbers": times, "ratios": ratios}
    return result | {
        name: {"ms": found, "temp_bytes": sizes[name]}
        for name, found in by_name.items()
    }


def test_tables_of_made_up_times():
    [case] = cases.MEMORY["smoke"]
    contestants = {
        "jaxrnn": ran(20.0),
        "scan": {"failed": "RESOURCE_EXHAUSTED: of 99 bytes\nand more"},
        "haiku": {"left_out": "Haiku does not support lengths"},
        "linen": ran(30.0, 1.5, equation="another"),
        "torch": ran(10.0, 0.375, 0.5, 0.75, same=False),
    }
    row = {"name": case.name, "case": vars(case), "rounds": 3, "busy": 1}
    other = row | {"name": "b", "peers": {"haiku": {"left_out": "no"}}}
    result = {"name": "race", "date": "2026-01-01", "rounds": {"time": 3}}
    result |= {"machine": {"cores": 2}, "commits": {"jaxrnn": "abc"}}
    result |= {"versions": {"jax": "1"}, "cases": [row | {"peers": contestants}, other]}
    result |= {"missing": {"keras": "No module named 'keras'"}}
    text = report.write_report(result, [report.TIME], [report.MEMORY])
    for line in (
        "| case | jaxrnn, ms | scan | linen | torch |",
        f"| {case.label} | 20 | failed | 1.50* | 0.50 (0.38-0.75)† |",
        f"| {case.name} | 1 | failed | 1.00 | 1.00 |",
        "busy in 2 of 6 rounds",
        "- keras: No module named 'keras'",
        f"- scan in 1 of 2 cases ({case.name}): out of memory",
        "- haiku in 1 of 2 cases (b): no",
    ):
        assert line in text


def test_the_pages_say_what_the_results_say():
    found = claims.measured()
    for page in claims.PAGES:
        text = page.read_text()
        assert claims.replaced(text, found) == text, "run `python -m benchmarks.claims`"
        assert "<!-- race: " in text


def test_results_name_their_commit_and_have_the_cases_of_today():
    for file in claims.RESULTS.glob("*.md"):
        assert re.search(r"commit (jaxrnn )?[0-9a-f]{7,}\b(?!-)", file.read_text()), (
            file
        )
    for file in claims.RESULTS.glob("*.json"):
        result = json.loads(file.read_text())
        assert re.fullmatch("[0-9a-f]{7,}", result["commits"]["jaxrnn"]), file
        preset = file.stem.split("_")[1].removesuffix("-no-ynn")
        names = {case.name for case in cases.RACE[preset]}
        assert {row["name"] for row in result["cases"]} <= names, file


# Times, ratios and sizes in sentences. What else pages say of them has another source.
NUMBER = re.compile(r"[\d.,]+ (?:[mµ]s|[MG]iB|times as (?:long|fast|many|much))\b")
OTHER = {
    "README.md": {"219 MiB"},  # `tests/docs/test_docs.py` compiles the programs.
    "docs/guide/long_sequences.md": {"219 MiB", "5.6 MiB", "62.5 MiB"},
    "docs/guide/recurrences.md": {"22 MiB", "1,367 MiB"},
    "docs/guide/accelerators.md": {"3 GiB", "16 GiB"},  # Of the output above it.
    "docs/internals.md": {"2 MiB"},  # A constant of the code.
    "docs/guide/speed.md": {"32 MiB", "64 MiB"},  # Limits of malloc.
    "docs/tutorials/japanese_vowels.md": {"25.6 ms", "6.4 ms"},  # Of speech.
}


def test_times_on_pages_come_from_results():
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        name = str(page.relative_to(ROOT))
        text = claims.MARKED.sub("", page.read_text())
        text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
        found = set(NUMBER.findall(" ".join(text.split())))
        if "_build" not in page.parts and "names" not in page.parts:
            assert found <= OTHER.get(name, set()), name


def test_sentences_say_what_the_results_say():
    def measured(units, *, mode="train", pattern="", lengths="dense", **ratios):
        case = {"lengths": lengths, "mode": mode, "pattern": pattern, "units": units}
        peers = {name: ran(2.0, one) for name, one in ratios.items()}
        row = {"name": f"lstm H{units}", "case": case, "peers": peers}
        return claims.Measured("page", "CPU with AVX2, commit abc, today", row)

    found = [
        measured(512, torch=0.5, haiku=1.5, jaxrnn_xla=2.0),
        measured(320, torch=0.996, linen=2.0, jaxrnn_xla=3.0),
        measured(256, torch=0.9),
        measured(16, lengths="short", jaxrnn_xla=8.0),
        measured(128, by_hand=0.75, pattern="rollout"),
        measured(64, by_hand=4.0, pattern="rollout", mode="forward", jaxrnn_xla=9.0),
    ]
    losses = (
        "jaxrnn loses to hand-written loops that run one step a call (at worst 0.75), "
        "and to PyTorch on some layers from 256 units (at worst 0.50)."
    )
    assert claims.losses(found) == losses
    scanned = measured(128, by_hand=0.75, pattern="scanned")
    assert claims.losses([scanned]) == (
        "jaxrnn loses to hand-written loops (at worst 0.75)."
    )
    assert claims.lost_cases(found) == (
        "PyTorch is faster in 2 cases: `lstm H512` (0.50), `lstm H256` (0.90)."
    )
    assert claims.without_native(found) == (
        "Without native loops, jaxrnn takes 2.00 to 3.00 times as long on large "
        "layers, 8.00 times as long on padded layers."
    )
    assert claims.rollouts(found) == (
        "In rollouts with resets, a hand-written loop of Flax's cell takes 4.00 times "
        "as long at inference and 0.75 times as long in training."
    )
    assert claims.sizes(found) == (
        "*Large* layers have 128 to 512 units (CPU); *small* layers have 64 to 64 "
        "units (CPU); *padded* layers have 16 to 16 units (CPU). Padded rows have "
        "random lengths."
    )


def test_the_worst_cases_are_counted_and_named():
    def measured(batch, mode="train", pattern="", lengths="dense", **ratios):
        case = {"cell": "lstm", "batch": batch, "time": 50, "depth": 2, "units": batch}
        case |= {"lengths": lengths, "mode": mode, "pattern": pattern}
        peers = {name: ran(2.0, one) for name, one in ratios.items()}
        row = {"name": f"lstm B{batch}", "case": case, "peers": peers}
        return claims.Measured("page", "CPU with AVX2, today", row)

    found = [
        measured(1, torch=1.5, linen=2.5, nnx=2.0, by_hand=1.1),
        measured(8, torch=0.95),
        measured(8, mode="forward", torch=15.0, linen=1.0),
        measured(4, pattern="mapped", jaxrnn=1.0, by_hand=1.5),
    ]
    assert claims.conditions(found) == "CPU with AVX2, today."
    padded = measured(8, lengths="short", torch=3.0)
    assert claims.TEXTS["ranges"]([padded, *found]).splitlines() == [
        "|  | training, small | inference, small | training, padded "
        "| faster than jaxrnn in |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| Hand-written loops, Flax or JAX | 1.30 (1.10 to 1.50) | - | - "
        "| 0 of 2 cases |",
        "| Flax | 2.00 (2.00 to 2.00) | 1.00 (1.00 to 1.00) | - | 0 of 2 cases |",
        "| PyTorch | 1.23 (0.95 to 1.50) | 15.0 (15.0 to 15.0) | 3.00 (3.00 to 3.00) "
        "| 1 of 4 cases |",
    ]
    medians = claims.TEXTS["medians"](found).splitlines()
    assert medians[-1] == "| PyTorch | 1.23 | 15.0 | 1 of 3 cases |"
    worst = "The lowest ratio is 0.95 (PyTorch), in the case `lstm B8`."
    assert claims.worst(found) == worst


def test_a_file_name_has_the_processor_and_its_vectors(monkeypatch):
    info = "model name\t: Intel(R) Xeon(R) Processor @ 2.10GHz\nflags\t: avx2 avx512f\n"
    monkeypatch.setattr(machine.Path, "exists", lambda self: True)
    monkeypatch.setattr(machine.Path, "read_text", lambda self: info)
    assert machine.file_name() == "intel_xeon_avx512f"


TEXT = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%sum (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add = f32[] add(%x, %y)
}

%inner (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %all-gather.1 = f32[8]{0} all-gather(%p), dimensions={0}
}

%body (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %arg = (s32[], f32[8]{0}) parameter(0)
  %a = f32[8]{0} get-tuple-element(%arg), index=1
  %call = f32[8]{0} call(%a), to_apply=%inner
  %fusion = f32[8]{0} fusion(%call), kind=kLoop, backend_config={"estimated_cycles":"7"}
  ROOT %next = (s32[], f32[8]{0}) tuple(%a, %fusion)
}

%condition (arg.1: (s32[], f32[8])) -> pred[] {
  %arg.1 = (s32[], f32[8]{0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%arg.1), index=0
  %n = s32[]{:T(128)} constant(5)
  ROOT %less = pred[]{:T(512)} compare(%i, %n), direction=LT
}

ENTRY %main.1 (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  %start = (f32[2]{0}, f32[8]{0}) all-gather-start(%q), dimensions={0}
  %done = f32[8]{0} all-gather-done(%start)
  %part.1 = bf16[4,3]{1,0} collective-permute(%done), metadata={chain_id="1"}
  %part.2 = bf16[4,3]{1,0} collective-permute(%done), metadata={chain_id="2"}
  %both = (f32[8]{0}, /*index=1*/pred[3]{0}) all-reduce(%done, %done), to_apply=%sum
  %first = (s32[], f32[8]{0}) tuple(%q, %done)
  %while = (s32[], f32[8]{0}) while(%first), condition=%condition, body=%body
  ROOT %result = f32[8]{0} get-tuple-element(%while), index=1
}
"""


def test_collectives_with_their_bytes():
    inside, outside = Program(TEXT).collectives()
    assert inside == [Collective("all-gather", 32)]
    assert outside == [
        Collective("all-gather", 32),
        Collective("all-reduce", 35),
        Collective("collective-permute", 24),  # Both parts are one.
    ]
    assert collectives(TEXT)[0] == ["all-gather"]


def test_loops_count_as_often_as_they_run():
    # A fusion and a collective in each of five iterations; four collectives outside.
    assert work_of(Program(TEXT)) == (35, 14, 0)
    known = 'body=%body, backend_config={"known_trip_count":{"n":"3"}}'
    assert work_of(Program(TEXT.replace("body=%body", known))) == (21, 10, 0)
    unknown = TEXT.replace("direction=LT", "direction=NE")
    assert work_of(Program(unknown)) == (7, 6, 1)
