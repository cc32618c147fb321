"""Presets for chat endpoints: where they are, how they are spoken to, which variable holds the key.

``provider("google")`` reads GOOGLE_API_KEY from the environment or ``.env``; with ``base_url`` any server that speaks
one of the dialects can stand in its place. Called by the command line and policies/endpoint.py.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dpo_driver.core.errors import ConfigError, UnknownNameError
from dpo_driver.policies.budget import FREE, PRICES, Price
from dpo_driver.policies.dialects.common import EndpointError
from dpo_driver.policies.secrets import DOTENV, Secret, key_from, surroundings


@dataclass(frozen=True)
class Provider:
    """An endpoint and how to use it. Shows and compares without its key."""

    name: str  # in records: "google:gemini-3-flash-preview"
    base_url: str
    model: str | None  # None: the only one that the server lists
    dialect: str = "openai"  # a name in policies/dialects
    key: Secret | None = field(default=None, repr=False, compare=False)
    key_names: tuple[str, ...] = ()  # variables that may hold the key; none: no key is needed
    auth: str | None = None  # the header for the key; None: the dialect's
    limit_key: str = "max_tokens"
    spare: int = 0  # tokens to think with before the answer, for models that do
    knows: frozenset[str] = frozenset()  # settings beyond temperature and top_p
    extra: Mapping[str, Any] = field(default_factory=dict)  # more of the request's body; None takes a key out
    price: Price | None = None  # of any model; None: the table knows some
    environ: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)  # proxies and certificates

    def price_of(self, model: str) -> Price | None:
        """Dollars a million tokens; None where nobody knows."""
        return self.price or PRICES.get(model)


_PRESETS = {
    "google": Provider(
        "google", "https://generativelanguage.googleapis.com/v1beta/openai", "gemini-3-flash-preview",
        key_names=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    ),
    "anthropic": Provider(
        "anthropic", "https://api.anthropic.com/v1", "claude-sonnet-4-20250514", dialect="anthropic",
        key_names=("ANTHROPIC_API_KEY",),
    ),
    "openai": Provider(
        "openai", "https://api.openai.com/v1", "gpt-4o", key_names=("OPENAI_API_KEY",),
        limit_key="max_completion_tokens", knows=frozenset({"seed"}),
    ),
    "azure": Provider(
        "azure", "", "gpt-4o", key_names=("AZURE_OPENAI_API_KEY",), auth="api-key",
        limit_key="max_completion_tokens", knows=frozenset({"seed"}),
    ),
    "local": Provider(
        "local", "http://127.0.0.1:8000/v1", None, knows=frozenset({"seed", "repetition_penalty"}), price=FREE,
    ),
}  # fmt: skip
PROVIDERS = tuple(_PRESETS)
# Models that think by themselves; what they think is taken off the limit.
_THINKS = re.compile(r"gemini-(2\.5|[3-9])|gpt-[5-9]|o\d")
_ROOM_TO_THINK = 2048
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_CONNECTION = (*_PROXIES, *(name.lower() for name in _PROXIES), "SSL_CERT_FILE", "SSL_CERT_DIR")


def provider(
    name: str,
    model: str | None = None,
    base_url: str | None = None,
    *,
    key_env: str | None = None,
    dotenv: Path | None = DOTENV,
) -> Provider:
    """A preset, ready to be called.

    Args:
        name: one of ``PROVIDERS``.
        model: another than the preset's; with azure the name of the deployment.
        base_url: another address, up to what comes before ``/chat/completions`` or ``/messages``.
        key_env: the variable that holds the key, where it is not the preset's; this is how a local or other server
            gets one.
        dotenv: a file of variables beside the environment.

    Raises:
        UnknownNameError: there is no such preset.
        ConfigError: a key is missing or none; the variable is named.
        EndpointError: an address that cannot be used.
    """
    if name not in _PRESETS:
        raise UnknownNameError("provider", name, PROVIDERS, where="--provider")
    preset, environ = _PRESETS[name], surroundings(dotenv)
    names = (key_env,) if key_env else preset.key_names
    key = key_from(names, environ)
    if names and key is None:
        raise ConfigError(f"there is no key for {name}: {' or '.join(names)} is not set", where="environment or .env",
                          remedy=f"export {names[0]}=..., or write it into .env")  # fmt: skip
    named = model or preset.model
    thinks = preset.dialect == "openai" and bool(named and _THINKS.match(named))
    address = base_url or (_azure_address(environ) if name == "azure" else preset.base_url)
    return replace(
        preset,
        base_url=_checked(address),
        model=named,
        key=key,
        key_names=names,
        spare=_ROOM_TO_THINK if thinks else 0,
        extra={"reasoning_effort": "low"} if thinks and name == "google" else {},
        price=None if key else preset.price,  # what asks for a key may ask for money
        environ={name: environ[name] for name in _CONNECTION if environ.get(name)},
    )


def _azure_address(environ: Mapping[str, str]) -> str:
    """Azure's v1 API, which needs no api-version, under the resource's address."""
    resource = environ.get("AZURE_OPENAI_ENDPOINT", "").strip().rstrip("/")
    if not resource:
        raise ConfigError("the address of the Azure resource is not known: AZURE_OPENAI_ENDPOINT is not set",
                          where="environment or .env",
                          remedy="export AZURE_OPENAI_ENDPOINT=https://NAME.openai.azure.com")  # fmt: skip
    return resource if "/openai" in resource else f"{resource}/openai/v1"


def _checked(address: str) -> str:
    """An address without anything secret in it; what is refused is not repeated."""
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise EndpointError("the address of the endpoint is none", where="--endpoint",
                            remedy="write it as http://127.0.0.1:8000/v1")  # fmt: skip
    if (
        "@" in parts.netloc
        or parts.fragment
        or any(not pair.startswith("api-version=") for pair in parts.query.split("&") if pair)
    ):
        raise EndpointError("the address of the endpoint holds more than an address", where="--endpoint",
                            remedy="a key belongs into a variable: name it with --key-env")  # fmt: skip
    return address.rstrip("/")


def proxy_for(address: str, environ: Mapping[str, str]) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY ask for, unless NO_PROXY names the host. This machine's own
    addresses never go through one: it could not reach them."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if host == "localhost" or _is_loopback(host):
        return None

    def variable(name: str) -> str:
        return environ.get(name.lower()) or environ.get(name) or ""

    found = variable(f"{parts.scheme.upper()}_PROXY") or variable("ALL_PROXY")
    # The standard library's own rules for NO_PROXY: hosts, suffixes, ports, "*".
    bypassed = urllib.request.proxy_bypass_environment(parts.netloc, {"no": variable("NO_PROXY")})  # type: ignore[attr-defined]
    if not found or bypassed:
        return None
    return found if "://" in found else f"http://{found}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
