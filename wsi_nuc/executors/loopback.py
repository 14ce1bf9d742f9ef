"""What other machines cannot reach."""

from __future__ import annotations

import ipaddress
import socket

import psutil


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_loopback_interface(name: str | None) -> bool:
    """True if all addresses of the network interface are this machine's own."""
    addresses = psutil.net_if_addrs().get(name or "", [])
    internet = [one.address for one in addresses if one.family == socket.AF_INET]
    return bool(internet) and all(map(is_loopback, internet))
