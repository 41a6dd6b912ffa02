"""Python imports this at its start, in every process of the tests: none may connect to another machine."""

import socket
from typing import Any

_connect, _look_up = socket.socket.connect, socket.getaddrinfo
_HERE = ("127.0.0.1", "::1", "localhost", socket.gethostname(), "", None)


def _check(host: Any) -> None:
    if isinstance(host, bytes):
        host = host.decode()
    if host not in _HERE and not str(host).startswith("127."):
        raise AssertionError(f"a connection to {host} was attempted")


def _guarded_connect(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        _check(address[0])
    _connect(self, address)


def _guarded_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
    _check(host)
    return _look_up(host, *arguments, **options)


socket.socket.connect = _guarded_connect  # type: ignore[method-assign]
socket.getaddrinfo = _guarded_look_up
