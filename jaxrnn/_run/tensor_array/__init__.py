"""TensorFlow's `TensorArray` as a pytree; every write returns a new `TensorArray`."""
