"""Kernels compiled ahead of time for TPUs that are not here.

It needs libtpu, which would make JAX look for a TPU, so that it has an environment of
its own:

    python3 -m venv ahead && ahead/bin/pip install -e '.[test]' 'jax[tpu]'
    export JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1
    ahead/bin/pytest -n 0 tests/kernels/test_kernels_compiled.py
"""

import jax
import jax.numpy as jnp
import kernel_specs as specs
import pytest
from jax.experimental import topologies

import jaxrnn
from jaxrnn import CudnnCompatibleGRUCell, GRUCell, LSTMCell
from jaxrnn._kernels.pallas_mosaic_tpu import PallasMosaicTPU
from jaxrnn.testing._oracle import weighted_sum

pytest.importorskip("libtpu")

CHIPS = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
CELLS = {
    "lstm": LSTMCell,
    "projected": lambda n: LSTMCell(
        n, use_peepholes=True, num_proj=n // 2, cell_clip=1
    ),
    "gru": GRUCell,
    "gru_cudnn": CudnnCompatibleGRUCell,
}
# Few steps: a kernel is the same for any number of blocks of them.
SHAPES = [
    *specs.LARGE,
    specs.Spec(5, 13, 3, 100),
    specs.Spec(300, 9, 7, 129),
    specs.Spec(16, 8, 256, 4096),  # Beyond the VMEM of all chips, in float32.
]


def compiled(cell, spec, dtype, chip):
    """A run and all its gradients, compiled for a chip."""
    name = CHIPS[chip]
    device = topologies.get_topology_desc(platform="tpu", topology_name=name).devices[0]
    here = jax.sharding.SingleDeviceSharding(device)
    of = lambda *shape: jax.ShapeDtypeStruct(shape, dtype)
    time = min(spec.time, 20)
    x = of(spec.batch, time, spec.depth)
    params = jax.eval_shape(lambda x: cell.init(jax.random.key(0), x[:, 0]), x)
    state = jax.eval_shape(lambda: cell.zero_state(spec.batch, dtype))
    lengths = jax.ShapeDtypeStruct((spec.batch,), jnp.int32)

    def loss(params, x, state, lengths):
        made = jaxrnn.dynamic_rnn(
            cell.bind(params), x, lengths, state, implementation=PallasMosaicTPU(chip)
        )
        return weighted_sum(made)

    place = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here)
    args = jax.tree.map(place, (params, x, state, lengths))
    step = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    return step.trace(*args).lower(lowering_platforms=("tpu",)).compile()


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("spec", SHAPES, ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_what_is_planned_compiles(name, spec, dtype, chip):
    cell = CELLS[name](spec.units)
    x = jax.ShapeDtypeStruct((spec.batch, min(spec.time, 20), spec.depth), dtype)
    said = jaxrnn.explain(cell, x, machine=chip).verdicts
    (kernel,) = (v for v in said if v.implementation == "pallas_mosaic_tpu")
    if not kernel.serves:
        assert (chip, spec.units) == ("v4", 4096)
        return
    text = compiled(cell, spec, dtype, chip).as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 2
