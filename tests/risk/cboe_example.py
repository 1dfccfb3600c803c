"""The worked example of Cboe's VIX methodology paper: mid quotes of its two strips, quotes around their ends, and its results."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Near term: puts from 1370 in steps of 5 without 1405 and 1415 (no bid), the average at 1960, calls to 2100, then 2125.
NEAR_STRIKES = [float(k) for k in range(1370, 2101, 5) if k not in (1405, 1415)] + [2125.0]
NEAR_MIDS = [
    0.2, 0.125, 0.15, 0.225, 0.225, 0.125, 0.125, 0.225, 0.225, 0.175, 0.225, 0.275, 0.175, 0.225, 0.2, 0.25, 0.25, 0.25, 0.25,
    0.2, 0.25, 0.35, 0.175, 0.275, 0.325, 0.325, 0.3, 0.3, 0.35, 0.35, 0.325, 0.375, 0.375, 0.375, 0.5, 0.425, 0.425, 0.425,
    0.475, 0.55, 0.525, 0.525, 0.525, 0.525, 0.675, 0.575, 0.625, 0.625, 0.625, 0.675, 0.675, 0.725, 0.725, 0.775, 0.675, 0.825,
    0.825, 0.875, 0.875, 0.925, 0.975, 1.025, 1.025, 1.075, 1.125, 1.125, 1.175, 1.225, 1.275, 1.325, 1.375, 1.425, 1.475, 1.55,
    1.6, 1.675, 1.75, 1.825, 1.9, 2.0, 2.075, 2.175, 2.25, 2.375, 2.525, 2.625, 2.775, 2.95, 3.075, 3.3, 3.45, 3.65, 3.9, 4.1,
    4.35, 4.65, 4.95, 5.25, 5.6, 6.0, 6.4, 6.85, 7.35, 7.9, 8.3, 9.0, 9.65, 10.6, 11.4, 12.1, 13.25, 14.15, 15.25, 16.55, 18.25,
    19.75, 22.775, 21.05, 18.1, 15.25, 12.75, 10.45, 8.45, 6.65, 4.95, 3.8, 2.875, 2.025, 1.45, 1.125, 0.725, 0.525, 0.5, 0.4,
    0.25, 0.325, 0.225, 0.175, 0.15, 0.15, 0.25, 0.225, 0.1, 0.2, 0.1, 0.1,
]  # fmt: skip
# Beyond and between the strip: (strike, is call, bid, ask). Two zero bids in a row end it; what lies beyond does not count.
NEAR_OTHERS = [
    (1345.0, False, 0.0, 0.15), (1350.0, False, 0.05, 0.15), (1355.0, False, 0.05, 0.35), (1360.0, False, 0.0, 0.35),
    (1365.0, False, 0.0, 0.35), (1405.0, False, 0.0, 0.05), (1415.0, False, 0.0, 0.05), (2120.0, True, 0.0, 0.15),
    (2150.0, True, 0.0, 0.10), (2175.0, True, 0.0, 0.05), (2200.0, True, 0.0, 0.05), (2225.0, True, 0.05, 0.10),
    (2250.0, True, 0.0, 0.05),
]  # fmt: skip
CENTRE = 1960.0
# At 1960 call and put, and the put at 1965 from which the forward is read: 1965 + e^(RT) (21.05 - 23.15) = 1962.89996.
NEAR_CENTRE_CALL, NEAR_CENTRE_PUT, NEAR_PUT_1965 = 24.25, 21.30, 23.15
NEAR_MINUTES, NEXT_MINUTES, YEAR_MINUTES = 34_484.0, 44_954.0, 525_600.0
NEAR_RATE = 0.00031664
NEAR_VARIANCE, NEXT_VARIANCE, INDEX = 0.019233906, 0.019423884, 13.93


def near_board() -> tuple[NDArray[np.float64], ...]:
    """Strike, call bid, call ask, put bid, put ask; each of shape (1, n_strikes), NaN where the paper prints no quote.

    The paper prints mid quotes of the strip: they stand as both bid and ask.
    """
    quotes: dict[float, list[float]] = {}
    for strike, mid in zip(NEAR_STRIKES, NEAR_MIDS, strict=True):
        side = [np.nan, np.nan, mid, mid] if strike < CENTRE else [mid, mid, np.nan, np.nan]
        quotes[strike] = side
    quotes[CENTRE] = [NEAR_CENTRE_CALL, NEAR_CENTRE_CALL, NEAR_CENTRE_PUT, NEAR_CENTRE_PUT]
    quotes[1965.0][2:] = [NEAR_PUT_1965, NEAR_PUT_1965]
    for strike, is_call, bid, ask in NEAR_OTHERS:
        quotes[strike] = [bid, ask, np.nan, np.nan] if is_call else [np.nan, np.nan, bid, ask]
    table = np.array([[strike, *quotes[strike]] for strike in sorted(quotes)])
    return tuple(table[:, [column]].T for column in range(5))
