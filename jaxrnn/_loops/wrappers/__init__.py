"""The loops of wrappers, which run the loops of the cells that the wrappers hold."""
