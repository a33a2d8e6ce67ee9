"""What the trainer calls, so that it reads as prose: the step, its parts, what is kept of it."""
