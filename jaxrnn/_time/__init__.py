"""Which steps there are, which rows are alive, and the scan over them."""
