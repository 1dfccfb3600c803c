"""Where data comes from: one file a provider, one protocol a dataset, imported only when asked for."""

from flows.sources.base import Answer, EquitySource, MacroSource, OptionSource, RefusedRow, get_source, source_names

__all__ = ["Answer", "EquitySource", "MacroSource", "OptionSource", "RefusedRow", "get_source", "source_names"]
