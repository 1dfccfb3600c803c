"""Every error a user can meet, in one tree.

    QuantError                      exit 1   something the user can put right
    ├── InputError                  exit 1   an argument or a file the user gave is wrong
    │   ├── ConfigError             exit 1   a setting is unknown, mistyped or contradictory
    │   └── UnknownNameError        exit 1   no such symbol, strategy, feature, run, order, snapshot
    ├── DataError                   exit 3   data was refused; nothing was written
    │   ├── SchemaError             exit 3   columns, types, keys or clocks are not the table's
    │   ├── QualityError            exit 3   values break a declared rule
    │   ├── IntegrityError          exit 3   bytes are not the ones their hash promises
    │   └── LeakageError            exit 3   a value changed when the future was cut off
    ├── GateRefused                 exit 4   the evidence does not reach the gate
    ├── ServiceError                exit 5   an outside service failed; repeating is safe
    │   ├── ServiceUnavailable      exit 5   no answer, or an answer that is not one       (Transient)
    │   └── RateLimited             exit 5   asked to wait                                 (Transient)
    ├── StorageError                exit 5   disk full, folder not writable, database busy
    │   └── LockHeldError           exit 5   another process is doing this right now       (Transient)
    └── ExecutionError              exit 1   an order path stopped before doing harm
        ├── OrderRefused            exit 4   a pre-trade rule refused the order
        ├── PlanConflict            exit 4   the same plan id with other content
        └── TradingHalted           exit 4   a halt is latched; nothing was sent

A message says what happened, where, with which value, and what to do. `Transient` marks the classes that a retry may cure;
flows retry by that class and nothing else.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DataError",
    "ExecutionError",
    "GateRefused",
    "InputError",
    "IntegrityError",
    "LeakageError",
    "LockHeldError",
    "OrderRefused",
    "PlanConflict",
    "QualityError",
    "QuantError",
    "RateLimited",
    "SchemaError",
    "ServiceError",
    "ServiceUnavailable",
    "StorageError",
    "TradingHalted",
    "Transient",
    "UnknownNameError",
    "did_you_mean",
]


class Transient:
    """Marks an error that the same call, made again later, may not meet."""


class QuantError(Exception):
    """The root of all errors raised on purpose.

    Parameters
    ----------
    message : str
        What happened, where, and with which value.
    remedy : str, optional
        What the user can do about it: a command, a setting, a correction.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}\n  → {self.remedy}"


class InputError(QuantError):
    """An argument or a file the user gave is wrong; nothing was changed."""


class ConfigError(InputError):
    """A setting is unknown, mistyped or contradicts another; nothing was started."""


class UnknownNameError(InputError):
    """A name was asked for that does not exist; the message lists the near ones."""


class DataError(QuantError):
    """Data was refused; the lake is as it was before."""

    exit_code = 3


class SchemaError(DataError):
    """A batch has columns, types, keys or clocks that its table does not have."""


class QualityError(DataError):
    """Values break a declared rule of their table."""


class IntegrityError(DataError):
    """Bytes are not the ones that their recorded hash promises."""


class LeakageError(DataError):
    """A value known in the past changed when the future was taken away."""


class GateRefused(QuantError):
    """The evidence does not reach the gate; no alias was moved."""

    exit_code = 4


class ServiceError(QuantError):
    """An outside service failed; repeating the command is safe."""

    exit_code = 5


class ServiceUnavailable(ServiceError, Transient):
    """The service gave no answer, or one that cannot be read. This is never taken for an empty answer."""


class RateLimited(ServiceError, Transient):
    """The service asked us to wait.

    Parameters
    ----------
    retry_after_seconds : float, optional
        How long it asked us to wait.
    """

    def __init__(self, message: str, *, remedy: str | None = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_seconds = retry_after_seconds


class StorageError(QuantError):
    """The disk, a folder or a local database did not take what was written; what was acknowledged before is safe."""

    exit_code = 5


class LockHeldError(StorageError, Transient):
    """Another process is doing the same work in the same place; this one changed nothing."""


class ExecutionError(QuantError):
    """An order path stopped before it could do harm."""


class OrderRefused(ExecutionError):
    """A pre-trade rule refused the order; it was not sent.

    Parameters
    ----------
    rule : str
        The rule's name, as in `config/defaults.yaml`.
    """

    exit_code = 4

    def __init__(self, message: str, *, rule: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.rule = rule


class PlanConflict(ExecutionError):
    """A plan id was used before with other content; nothing was sent."""

    exit_code = 4


class TradingHalted(ExecutionError):
    """A halt is latched for this account; nothing was sent. `quant resume` lifts it, with a reason."""

    exit_code = 4


def did_you_mean(name: str, known: list[str] | tuple[str, ...], *, listing: int = 12) -> str:
    """Word the remedy for an unknown name: the near names, else the first few known ones."""
    import difflib

    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if not known:
        return "there are none yet"
    more = "" if len(known) <= listing else f" and {len(known) - listing} more"
    return f"known: {', '.join(sorted(known)[:listing])}{more}"
