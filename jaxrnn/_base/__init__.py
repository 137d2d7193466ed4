"""Types, errors, nests, arguments and layouts: what knows nothing of recurrent nets."""
