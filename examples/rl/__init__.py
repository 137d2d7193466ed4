"""A recurrent policy trained by PPO, with per-step resets of its state."""
