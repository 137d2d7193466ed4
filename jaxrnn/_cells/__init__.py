"""The cells, one a file: a cell knows one step."""
