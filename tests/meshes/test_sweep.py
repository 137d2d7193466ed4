"""Every public function on explicit and automatic meshes equals one device."""

import pytest
import mesh_decoders
import mesh_modules
import mesh_rows
from mesh_sweep import MESHES

from jaxrnn.testing._oracle import close

ROWS = mesh_rows.ROWS | mesh_modules.ROWS | mesh_decoders.ROWS
CASES = {
    f"{name}-{i}": case for name, row in ROWS.items() for i, case in enumerate(row.cases)
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MESHES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_one_device(case, kind):
    try:
        close(case.on_mesh(kind), case.on_one_device, "float64")
    except Exception as error:
        error.add_note(str(case))
        raise
