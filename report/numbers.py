"""How numbers are formatted on the page and in its figures."""

from collections.abc import Sequence

from onepass.cache.progress import human_seconds
from onepass.classify.text import p_value as plain_p_value
from onepass.classify.text import percent as plain_percent

FIXED = "\u00a0"  # no-break space


def percent(share: float | None) -> str:
    """Return a share as `59.4 %`; `–` where there is none."""
    return "–" if share is None else plain_percent(share).replace(" ", FIXED)


def published(accuracy: float) -> str:
    """Return a published accuracy, in percent, with the decimals that it was published with."""
    return f"{accuracy:g}{FIXED}%"


def interval(pair: Sequence[float] | None) -> str:
    """Return an interval of shares as `58.6 … 60.5 %`."""
    return "–" if not pair else f"{100 * pair[0]:.1f} … {100 * pair[1]:.1f} %".replace(" ", FIXED)


def points(difference: float | None) -> str:
    """Return a difference of shares in points, as `+3.1` or `−0.4`; `–` where there is none."""
    if difference is None:
        return "–"
    text = f"{100 * difference:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def p_value(p: float | None) -> str:
    """Return a p-value as `p = 0.16` or `p < 0.001`."""
    return "" if p is None else plain_p_value(p).replace(" ", FIXED)


def number(value: float | None) -> str:
    """Return a number as the script sorts it; "" where there is none."""
    return "" if value is None else str(value)


def thousands(number: float) -> str:
    """Return a whole number as `10,000`."""
    return f"{number:,.0f}"


def rate(per_second: float) -> str:
    """Return a speed as `475`, `8.3` or `–` where it is not known."""
    if not per_second:
        return "–"
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}"


def duration(seconds: float) -> str:
    """Return a time as `0.2 s`, `45 s` or `3 min 20 s`."""
    text = f"{seconds:.1f} s" if 0 < seconds < 9.95 else human_seconds(seconds)
    return text.replace(" ", FIXED)
