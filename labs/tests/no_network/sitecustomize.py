"""On PYTHONPATH: refuses the network to this process and to every Python process it starts.

Sockets without an address, the pair between an engine and its front end for one, still work.
"""

import socket


class NetworkRefused(RuntimeError):
    """Somebody wanted the network."""


def refuse(*arguments, **named):
    raise NetworkRefused(f"the labs use no network, but this was tried: {arguments[1:] or named}")


for name in ("connect", "connect_ex", "bind", "sendto"):
    setattr(socket.socket, name, refuse)
for name in ("create_connection", "getaddrinfo", "gethostbyname"):
    setattr(socket, name, refuse)
