"""Runs, trials, evidence, gates, registry and reports."""
