"""Numbers about money: pure functions on arrays."""
