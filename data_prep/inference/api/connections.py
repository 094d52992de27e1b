"""Connections to an endpoint, through a proxy if the environment sets one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_prep.errors import DataError

if TYPE_CHECKING:
    from httpx2 import AsyncClient

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


def http_client(urls: Sequence[str]) -> AsyncClient:
    """An HTTP client, with the proxy except for local addresses. Raises DataError for a bad proxy or certificates."""
    from httpx2 import URL, AsyncClient, Limits

    own = all(URL(url).host in LOOPBACK for url in urls)
    unlimited = Limits(max_connections=None, max_keepalive_connections=None)  # `concurrency` is the limit
    try:
        return AsyncClient(timeout=None, limits=unlimited, follow_redirects=True, trust_env=not own, verify=not own)
    except ImportError as error:
        raise DataError(
            f"{_variables(PROXIES)}: a SOCKS proxy needs the package socksio, which is not installed: "
            "set an HTTP proxy, unset the variable, or exempt the endpoint's host by NO_PROXY"
        ) from error
    except OSError as error:
        where = _variables(("SSL_CERT_FILE", "SSL_CERT_DIR"))
        raise DataError(f"{where}: cannot read certificates from it ({error.strerror or error})") from error
    except ValueError as error:
        raise DataError(f"{_variables(PROXIES)}: not a proxy address (http://host:port)") from error


def _variables(names: Sequence[str]) -> str:
    """Names of the set environment variables; their values may contain passwords."""
    return ", ".join(name for name in names if os.environ.get(name) or os.environ.get(name.lower())) or names[0]
