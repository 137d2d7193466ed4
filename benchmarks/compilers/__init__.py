"""Programs compiled for TPUs and GPUs that are not there, and what they consist of.

    pip install "jax[tpu,cuda12-local]"  # Two compilers; no device, driver or CUDA.

`jaxrnn/_drivers/absent_devices.py` makes the devices, `program.py` compiles for them
and measures, `hlo.py` reads the text of a compiled program. `python -m
benchmarks.compilers` compares `programs.py` with peers; `scaling.py` plans a training
step for 1 to 256 chips. Nothing runs.

Set JAX_PLATFORMS=cpu, or `jax.config.update("jax_platforms", "cpu")` before JAX starts.
Otherwise JAX looks for TPUs and GPUs, and its CUDA plugin gives up without one.
"""
