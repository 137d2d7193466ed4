"""The cells: one idea a file; a cell knows one step."""
