"""What the predictions of a training step cost."""
