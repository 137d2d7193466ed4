"""What all folders use: types, errors, nests, checks of arguments, keys, shardings."""
