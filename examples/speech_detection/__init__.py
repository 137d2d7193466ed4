"""Speech detection with the trained network of the package silero-vad."""
