"""Programs compiled for TPUs and GPUs that are not there, and what they consist of.

    pip install "jax[tpu,cuda12-local]"  # Two compilers; no device, driver or CUDA.

`devices.py` makes the devices, `program.py` compiles for them and measures, `hlo.py`
reads the text of a compiled program. `scaling.py` plans a training step for 1 to 256
chips. Nothing runs.
"""
