"""Store rows with three clocks, read them as of a moment, name exact states."""
