"""An address → the bytes of one picture, with the limits that a stranger's address needs.

Only http and https are spoken, at most `MAX_BYTES` come, and neither a redirect nor an address that stands
in a file leads into a private network: the address that a name stands for is looked up once, checked, and
connected to. Proxies are not used: behind one this check would see the proxy only.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from urllib.parse import urljoin, urlsplit

from onepass.cache.errors import InvalidInputError
from onepass.cache.progress import human_bytes

MAX_BYTES = 1 << 28  # of one picture's file
REDIRECTS = 5
TIMEOUT = 30.0  # seconds without an answer
LONGEST = 300.0  # seconds for one picture
BLOCK = 1 << 16  # bytes
MOVED = (301, 302, 303, 307, 308)
SCHEMES = {"http": 80, "https": 443}


def is_address(text: str) -> bool:
    """Say whether a text is an address and no file name."""
    return "://" in text


def fetch_picture(address: str, *, trusted: bool) -> bytes:
    """Return what an address gives.

    Args:
        address: http:// or https://.
        trusted: Whether it may lie in a private network; what it redirects to may not.

    Raises:
        InvalidInputError: It is another kind of address, leads into a private network, cannot be reached,
            is answered by an error, or gives too much; the reason is named.
    """
    ends, here = time.monotonic() + LONGEST, address
    for number in range(REDIRECTS + 1):
        try:
            status, reason, moved, content = _ask(here, ends, trusted and not number)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, InvalidInputError):
                raise
            raise InvalidInputError(f"{here}: cannot be fetched ({error})") from error
        if status in MOVED and moved:
            here = urljoin(here, moved)
        elif status == 200:
            return content
        else:
            raise InvalidInputError(f"{here}: the server answered {status} {reason}")
    raise InvalidInputError(f"{address}: redirected more than {REDIRECTS} times")


def _ask(address: str, ends: float, private_too: bool) -> tuple[int, str, str, bytes]:
    """Return status, reason, where it has moved to, and content."""
    parts = urlsplit(address)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise InvalidInputError(
            f"{address}: refused: expected an address that begins with http:// or https://"
        )
    port = parts.port or SCHEMES[parts.scheme]
    connection = http.client.HTTPConnection(parts.hostname, port, timeout=TIMEOUT)
    connection.sock = _connected(parts.hostname, port, parts.scheme == "https", private_too)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    try:
        headers = {"Host": host, "User-Agent": "onepass", "Accept-Encoding": "identity"}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        moved = answer.getheader("Location") or ""
        content = _read(answer, address, ends) if answer.status == 200 else b""
        return answer.status, answer.reason, moved, content
    finally:
        connection.close()


def _connected(host: str, port: int, secure: bool, private_too: bool) -> socket.socket:
    """Return a connection to a host, after a look at the very number that is connected to.

    Raises:
        InvalidInputError: One of its numbers is of a private network.
        OSError: None of them can be reached.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    numbers = list(dict.fromkeys(str(address[4][0]) for address in found))
    for number in numbers:
        if not private_too and not _is_public(number):
            raise InvalidInputError(f"{host}: refused: {number} is no public address")
    for number in numbers:  # a machine without IPv6 is told of such numbers all the same
        try:
            plain = socket.create_connection((number, port), timeout=TIMEOUT)
            break
        except OSError:
            if number == numbers[-1]:
                raise
    if not secure:
        return plain
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host)


def _is_public(number: str) -> bool:
    address = ipaddress.ip_address(number.partition("%")[0])
    inside = getattr(address, "ipv4_mapped", None) or address
    return inside.is_global and not inside.is_multicast


def _read(answer: http.client.HTTPResponse, address: str, ends: float) -> bytes:
    content = bytearray()
    while block := answer.read1(BLOCK):
        content += block
        if len(content) > MAX_BYTES:
            raise InvalidInputError(
                f"{address}: refused: more than the {human_bytes(MAX_BYTES)} that are allowed"
            )
        if time.monotonic() > ends:
            raise InvalidInputError(f"{address}: refused: it took more than {LONGEST:.0f} s")
    return bytes(content)
