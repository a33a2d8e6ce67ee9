"""Which frames are for training, for validation and for tests."""
