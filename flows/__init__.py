"""Everything that starts work, and the command line."""
