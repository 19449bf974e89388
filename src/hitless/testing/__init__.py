"""Public doubles for tests: a fake kernel and a fake API server that hold state and fail like the real ones."""
