"""Matrix memories: the base classes, the rules of a step, and the cells."""
