"""Which exchange calendar a Yahoo exchange code keeps (exchange_calendars; ISO 10383 where the exchange has a code there)."""

from __future__ import annotations

from config.errors import QualityError

__all__ = ["CALENDARS", "calendar_of"]

# All that trade on the American stock market's days and hours share the calendar XNYS.
_UNITED_STATES = (
    "NMS",
    "NGM",
    "NCM",
    "NAS",
    "NIM",
    "NYQ",
    "NYS",
    "ASE",
    "PCX",
    "BTS",
    "PNK",
    "OQB",
    "OQX",
    "OEM",
    "OGM",
    "SNP",
    "DJI",
)

CALENDARS: dict[str, str] = {
    **dict.fromkeys(_UNITED_STATES, "XNYS"),
    "CCC": "24/7",  # crypto currencies
    "CCY": "24/5",  # currencies: Monday to Friday, holidays included
    **dict.fromkeys(("CMX", "CME", "NYM", "CBT"), "CMES"),  # futures of the CME group
    "NYB": "IEPA",  # ICE futures, New York
    **dict.fromkeys(("TOR", "VAN", "CNQ", "NEO"), "XTSE"),
    **dict.fromkeys(("LSE", "IOB"), "XLON"),
    "GER": "XETR",
    "FRA": "XFRA",
    "STU": "XSTU",
    "DUS": "XDUS",
    "HAM": "XHAM",
    "PAR": "XPAR",
    "AMS": "XAMS",
    "BRU": "XBRU",
    "LIS": "XLIS",
    "MIL": "XMIL",
    "MCE": "XMAD",
    "EBS": "XSWX",
    "VIE": "XWBO",
    "ISE": "XDUB",
    "STO": "XSTO",
    "CPH": "XCSE",
    "HEL": "XHEL",
    "OSL": "XOSL",
    "ICE": "XICE",
    "ATH": "ASEX",
    "WSE": "XWAR",
    "PRA": "XPRA",
    "BUD": "XBUD",
    "IST": "XIST",
    "TLV": "XTAE",
    "SAU": "XSAU",
    "JNB": "XJSE",
    "JPX": "XTKS",
    "HKG": "XHKG",
    "SHH": "XSHG",
    "SHZ": "XSHG",  # Shenzhen keeps Shanghai's days and hours
    **dict.fromkeys(("KSC", "KOE"), "XKRX"),
    **dict.fromkeys(("TAI", "TWO"), "XTAI"),
    "SES": "XSES",
    "KLS": "XKLS",
    "JKT": "XIDX",
    "SET": "XBKK",
    **dict.fromkeys(("NSI", "BSE"), "XBOM"),
    "ASX": "XASX",
    "NZE": "XNZE",
    "SAO": "BVMF",
    "MEX": "XMEX",
    "BUE": "XBUE",
    "SGO": "XSGO",
}


def calendar_of(exchange: str, symbol: str, stated: str | None = None) -> str:
    """The calendar of a Yahoo exchange code.

    Parameters
    ----------
    exchange : str
        Yahoo's ``exchangeName``: NMS, LSE, CCC.
    symbol : str
        For the error.
    stated : str, optional
        The user's word, which wins.

    Raises
    ------
    QualityError
        The exchange is not known: without its calendar nothing says which bar is finished.
    """
    if stated is not None:
        return stated
    try:
        return CALENDARS[exchange]
    except KeyError:
        raise QualityError(
            f"Yahoo says that {symbol} trades at {exchange!r}, and the calendar of that exchange is not known here",
            remedy="name one for this request with the option calendar=XNYS (an ISO 10383 code), or leave the symbol out",
        ) from None
