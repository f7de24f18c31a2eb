"""The time that is written into files, reproducible where asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime

from pyimgano_runtime.errors import ConfigError

Clock = Callable[[], str]


def timestamp() -> str:
    """Give SOURCE_DATE_EPOCH, else now, as ISO 8601 in UTC.

    Raises:
        ConfigError: SOURCE_DATE_EPOCH is not a number of seconds.
    """
    return source_date() or _text(datetime.now(UTC))


def source_date() -> str | None:
    """Give SOURCE_DATE_EPOCH as ISO 8601, None where it is not set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        return None
    if not epoch.isdecimal() or len(epoch) > 11:
        raise ConfigError(
            f'SOURCE_DATE_EPOCH: found "{epoch}", expected seconds since 1970'
        )
    return _text(datetime.fromtimestamp(int(epoch), UTC))


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
