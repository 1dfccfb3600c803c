"""Declared, point-in-time features."""
