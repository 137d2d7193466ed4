"""Compiles programs for TPUs and GPUs without such a device, and analyzes them.

    pip install "jax[tpu,cuda12-local]"  # Two compilers; no device, driver or CUDA.

`../absent_devices.py` creates the devices, `program.py` compiles for them
and reads the compiler's numbers, and `hlo.py` parses the text of a compiled program.
`python -m benchmarks.compilers` compares jaxrnn's programs with peers;
`scaling.py` plans a training step for 1 to 256 chips. Nothing runs on a device.

Set JAX_PLATFORMS=cpu, or `jax.config.update("jax_platforms", "cpu")` before JAX starts.
Otherwise, JAX looks for TPUs and GPUs, and its CUDA plugin fails if there is no GPU.
"""
