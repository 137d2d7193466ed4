"""Which steps there are, which rows are alive, and the scan that is the oracle."""
