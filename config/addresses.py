"""Addresses of stores and servers: whether one carries a password, and how to show it without."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ["has_password", "object_store", "without_password"]

# user:password@ behind ://, and password=... among the parameters of a database's address.
_USER_PART = re.compile(r"(?<=://)([^/@\s:]*):\S*@")
_PARAMETER = re.compile(r"(?i)([?&;](?:password|passwd|secret|token|sslpassword)=)[^&;\s'\"]*")


def without_password(text: str) -> str:
    """The same text with ``***`` in place of the password of every address in it: fit for a message, a log or a page."""
    return _PARAMETER.sub(r"\1***", _USER_PART.sub(r"\1:***@", text))


def has_password(address: str) -> bool:
    """Whether an address carries a password."""
    return without_password(address) != address


def object_store(address: str) -> tuple[str, str] | None:
    """The bucket and the prefix (without slashes around it) of an ``s3://`` address; None for a folder of this machine.

    Raises
    ------
    ValueError
        It is an address, but not one of a bucket that can be used.
    """
    if "://" not in address:
        return None
    parts = urlsplit(address)
    if parts.scheme != "s3":
        raise ValueError(f"{parts.scheme}:// is not served: give s3://bucket/prefix, or a folder")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc) or parts.query or parts.fragment:
        raise ValueError("an object store is given as s3://bucket/prefix, with nothing before the bucket or behind the prefix")
    prefix = parts.path.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._=/-]*", prefix) or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
        raise ValueError("a prefix in a bucket is made of letters, digits, . _ = - and single slashes")
    return parts.netloc, prefix
