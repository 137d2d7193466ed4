"""One run of a cell, whichever driver asked for it."""
