"""Orders: plan, guard, journal, gateways, reconciliation.

A paper session is: `make_plan` at a session's close, `run_plan` against a `Broker`, `SimulatedBroker.on_session` for the next
bar, `reconcile`. Import from the modules; nothing is imported here.
"""
