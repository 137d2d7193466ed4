"""Recurrent policies trained by PPO on a task that needs memory."""
