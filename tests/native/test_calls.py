"""The library of native loops: arguments of calls, and calls in other processes."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from native_cases import needs_library

pytestmark = needs_library

# Arguments, which the calls check when they decode them.

# The type depends on whether JAX waits for the call.
ERRORS = (ValueError, jax.errors.JaxRuntimeError)
ENTRIES, BATCH, TIME, DEPTH, UNITS = 7, 2, 3, 4, 5


ATTRIBUTES = {
    **{"cell": np.int32(2), "activation": np.int32(0), "forget_bias": np.float32(0)},
    **dict.fromkeys(("cell_clip", "output_clip"), np.float32(np.inf)),
    **{"entries": ENTRIES, "batch": BATCH, "time": TIME, "resets": True},
    **{"depth": DEPTH, "units": UNITS, "outputs": UNITS},
    **dict.fromkeys(("time_major", "elementwise", "new_states", "save"), False),
}


def run(change=(), drop=None, **attributes):
    """Run basic RNNs with resets, with some arguments or attributes changed."""
    shapes = {
        "x": (1, BATCH, TIME, DEPTH),
        "kernel[0]": (ENTRIES, DEPTH + UNITS, UNITS),
        "bias[0]": (ENTRIES, UNITS),
        "h": (1, BATCH, UNITS),
        "reset_h": (ENTRIES, BATCH, UNITS),
    }
    arguments = {
        "lengths": jnp.full((1, BATCH), TIME, jnp.int32),
        "resets": jnp.zeros((1, BATCH, TIME), jnp.int32),
        **{name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()},
        **dict(change),
    }
    arguments.pop(drop, None)
    made = (ENTRIES, BATCH, TIME, UNITS), (ENTRIES, BATCH, UNITS)
    made = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in made]
    call = jax.ffi.ffi_call("jaxrnn_native_forward", made)
    attributes = ATTRIBUTES | attributes
    attributes.pop(drop, None)
    return jax.block_until_ready(call(*arguments.values(), **attributes))


def of(name, *shape, dtype=jnp.float32):
    return {"change": {name: jnp.zeros(shape, dtype)}}


TOO_LONG = np.full((1, BATCH), TIME + 1, np.int32)
REFUSED = [
    (
        of("lengths", dtype=jnp.int32),
        "lengths must have 2 elements of 4 bytes for each of 7",
    ),
    (of("kernel[0]", 1, 9, 4), "kernel[0] must have 45 elements"),
    (of("h", 6, 2, 5), "for each of 7 entries, but it has 240 bytes"),
    ({"drop": "reset_h"}, "reset_h is missing"),
    ({"change": {"lengths": TOO_LONG}}, "lengths must be from 0 to 3"),
    ({"cell": np.int32(7)}, "cell must be from 0 to 6"),
    ({"batch": "2"}, "batch is missing or has another type"),
    ({"time": 0}, "time must be from 1 to"),
    # A product of these sizes does not fit in 64 bits.
    ({"batch": 2**31 - 1, "time": 2**31 - 1, "depth": 2**31 - 1}, "lengths must have"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ERRORS, match=re.escape(message)):
        run(**arguments)


# Other processes: forked, and with a loaded executable.

in_processes = pytest.mark.usefixtures("fast_to_compile")


@pytest.fixture
def run_file(tmp_path, monkeypatch):
    """Run a program with arguments in a process of its own; a hang is an error."""
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))

    def run(program, *args):
        file = tmp_path / "program.py"
        file.write_text(program)
        subprocess.run([sys.executable, file, *map(str, args)], check=True, timeout=500)

    return run


# JAX warns of forks, because XLA's threads do not exist in a child. The children run a
# program that needs none of them, and that was compiled before. `native/tests` tests
# forks during calls, because XLA may hold a mutex during its own part of a call.
FORKS = """
import os, signal, sys, warnings
import jax, jax.numpy as jnp, numpy as np, jaxrnn

children, calls = int(sys.argv[1]), int(sys.argv[2])
warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # JAX's.
warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)  # Python's.
cell, x = jaxrnn.LSTMCell(32), jnp.ones((16, 20, 8))
params = cell.init(jax.random.key(0), x[:, 0])

@jax.jit
def run(params, x):
    return jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)[0]

assert "jaxrnn_native_forward" in run.lower(params, x).as_text()
want, cores = np.asarray(run(params, x)), os.sched_getaffinity(0)

def size():
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["Threads"]), int(fields["VmRSS"].split()[0])

def work(generations=2):
    signal.alarm(100)  # Ends a process that waits forever.
    for k in range(calls):
        if k == 20:
            _, memory = size()
        np.testing.assert_array_equal(run(params, x), want)
        assert os.sched_getaffinity(0) == cores
    threads, later = size()
    assert min(2, len(cores)) <= threads <= len(cores), threads
    assert later < memory + 10_000, (memory, later)  # KiB.
    if generations > 1:
        fork(generations - 1)

def fork(generations):
    child = os.fork()
    if child == 0:
        try:
            work(generations)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"a child ended with {status}"

for k in range(children):
    run(params, x).block_until_ready()  # The helpers still wait for the next call.
    fork(2)
np.testing.assert_array_equal(run(params, x), want)
assert os.sched_getaffinity(0) == cores
"""
needs_forks = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@needs_forks
@in_processes
@pytest.mark.slow
def test_forks(run_file):
    run_file(FORKS, 40, 300)


SAVE = """
import pickle, sys
import jax, jax.numpy as jnp, numpy as np, jaxrnn
from jax.experimental.serialize_executable import serialize

cell, x = jaxrnn.LSTMCell(5), jnp.ones((4, 20, 3))
params = cell.init(jax.random.key(0), x[:, 0])
loss = lambda p, x: jaxrnn.dynamic_rnn(cell.bind(p), x, dtype=x.dtype)[0].sum()
step = jax.jit(jax.value_and_grad(loss)).lower(params, x).compile()
assert "jaxrnn_native_backward" in step.as_text()
given = jax.tree.map(np.asarray, (params, x))
with open(sys.argv[1], "wb") as file:
    pickle.dump((serialize(step), given, jax.device_get(step(*given))), file)
"""
LOAD = """
import pickle, sys
import jaxrnn, jax, numpy as np
jax.config.update("jax_num_cpu_devices", 1)  # The import has started no backend.
from jax.experimental.serialize_executable import deserialize_and_load

with open(sys.argv[1], "rb") as file:
    serialized, given, want = pickle.load(file)
got = deserialize_and_load(*serialized)(*given)
jax.tree.map(np.testing.assert_array_equal, got, want)
"""


@in_processes
@pytest.mark.slow
def test_a_serialized_executable(run_file, tmp_path, monkeypatch):
    """A process that has traced no native loop runs it after `import jaxrnn`."""
    # JAX cannot serialize a program that it has read from its cache.
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
    for program in (SAVE, LOAD):
        run_file(program, tmp_path / "step")
