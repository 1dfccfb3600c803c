"""Orders: plan, guard, journal, gateways, reconciliation."""
