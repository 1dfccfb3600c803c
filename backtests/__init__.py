"""Strategies, engines, search, validation, findings and parity."""
