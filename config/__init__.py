"""Settings, errors, clock, calendar, table schemas and hashing: what every other room needs and nothing more."""
