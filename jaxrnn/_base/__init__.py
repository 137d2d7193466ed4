"""Types, errors, nests, arguments and shardings, independent of recurrent networks."""
