"""Matrix memories: the kind of cell, its loop over chunks, its rules and its cells."""
