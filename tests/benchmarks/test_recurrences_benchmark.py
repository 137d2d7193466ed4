"""The benchmark of recurrences runs, and all ways to run a cell agree."""

import dataclasses
import importlib
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # The benchmarks are not part of the package.
command, cases, runs, rounds = (
    importlib.import_module(f"benchmarks.{name}")
    for name in (
        "recurrences.__main__",
        "recurrences.cases",
        "recurrences.runs",
        "core.rounds",
    )
)


@pytest.mark.slow
def test_a_race_and_a_growth(tmp_path, monkeypatch, users_flags):
    monkeypatch.setattr(rounds, "LOOKS", 1)  # Beside other tests it is never quiet.
    where = ["--preset", "smoke", "--out", str(tmp_path), "--rounds", "1"]
    what = ["--steps", "16", "--peers", "scan,associative"]
    command.main([*where, *what, "--only", "^MinGRU B1 T(4|16) .* train"])
    race, growth = json.loads((tmp_path / "recurrences.json").read_text())["cases"]
    assert (race["case"]["group"], growth["case"]["group"]) == ("race", "growth")
    for name, ran in race["peers"].items():
        assert ran["agreement"]["same"], name
        assert ran["facts"]["temp_bytes"] > 0
    facts = race["peers"]["jaxrnn"]["facts"]
    assert facts["jaxrnn, float32"] < 1e-5 < facts["jaxrnn, bfloat16"] < 0.1
    assert all(len(ran["ms"]) == 1 for ran in growth["peers"].values())
    table = (tmp_path / "recurrences.md").read_text()
    assert "\n| MinGRU | train | 4 | " in table
    assert (tmp_path / "recurrences.png").stat().st_size > 10_000


def test_the_growth_is_from_an_eighth_to_eight_times_the_steps():
    found = cases.cases(8192, 256)
    names = [case.name for case in found]
    assert len(set(names)) == len(names)
    times = {c.time for c in found if c.cell == "LRU" and c.batch == 1}
    assert sorted(times) == [2**k for k in range(10, 17)]


@dataclasses.dataclass(frozen=True, eq=False)
class Rotation(jaxrnn.LinearRecurrenceCell):
    """Complex states, whose factors are those of all rows."""

    num_units: int
    output_size = property(lambda self: self.num_units)
    state_size = property(lambda self: jaxrnn.ComplexState(*[self.num_units] * 2))

    def param_specs(self, depth):
        return {"angle": jaxrnn.ParamSpec((depth,), jax.nn.initializers.normal())}

    def coefficients(self, params, inputs):
        angle = params["angle"][None, :]
        a = jaxrnn.ComplexState(0.9 * jnp.cos(angle), 0.9 * jnp.sin(angle))
        return a, jaxrnn.ComplexState(inputs, 2 * inputs), inputs

    def output(self, params, state, rest):
        return state.real + rest


@pytest.mark.parametrize("cell", [jaxrnn.QRNNCell(4), Rotation(4)])
def test_the_associative_scan_by_hand_is_the_recurrence(cell):
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3, 4)), jnp.float32)
    state = jax.tree.map(lambda x: x + 0.5, cell.zero_state(3, xs.dtype))
    args = cell, cell.init(jax.random.key(0), xs[0]), xs, state
    expected, found = runs.by_scan(*args), runs.by_associative_scan(*args)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, found, expected)
