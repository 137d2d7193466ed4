"""What the modules of linen and nnx share; it does not use Flax itself."""
