"""The cells, one in each file: a cell knows one step."""
