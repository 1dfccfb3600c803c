"""The options engine: chain, legs, broker and the run itself; `backtests.options_bt` is the way in."""
