"""The options behind `options.py`, in groups: what each program offers, and what it refuses."""
