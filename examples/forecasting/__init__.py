"""A probabilistic forecaster of many series, some of which have gaps."""
