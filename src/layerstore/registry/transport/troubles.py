"""What goes wrong between two machines: the errors of sockets, TLS and HTTP become sentences with a remedy."""

from __future__ import annotations

import http.client
import socket
import ssl
from urllib.parse import urlsplit

from urllib3 import exceptions as urllib3s

from layerstore.errors import CertificateError, RegistryError, Unreachable
from layerstore.registry.transport.connections import TooSlow
from layerstore.registry.transport.settings import Settings
from layerstore.registry.transport.urls import place
from layerstore.registry.transport.words import printable
from layerstore.values import frozen

__all__ = ["CAUSES", "Trouble", "explained"]

CAUSES = (urllib3s.HTTPError, http.client.HTTPException, OSError, UnicodeError)
"""What making a request or reading a reply may raise."""

_NETWORK = "Look whether the name is right, the network works, and a proxy is needed (https_proxy)."
_AGAIN = "Try again; what has been transferred is kept."
_CERTIFICATE_MISSING = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "HANDSHAKE_FAILURE")


@frozen
class Trouble:
    """An error to raise, and whether it may be gone the next time."""

    error: RegistryError
    passes: bool
    is_of_connecting: bool = False
    """There was no connection yet, so nothing has been asked."""
    is_of_scheme: bool = False
    """It may be that the other side speaks HTTPS and we do not, or the other way round."""


def explained(cause: BaseException, url: str, settings: Settings) -> Trouble:
    """What `cause`, raised while `url` was talked to, means."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    shown = printable(host)
    chain = _chain(cause)
    for error in chain:
        if isinstance(error, ssl.SSLCertVerificationError):
            return Trouble(_untrusted(error, shown, settings), passes=False)
    for error in chain:
        if isinstance(error, ssl.SSLError):
            return _of_tls(error, shown, settings)
    if any(isinstance(error, urllib3s.ProxyError) for error in chain):
        words = f"the proxy on the way to {shown} failed: {_words(chain[-1])}"
        remedy = "Look at https_proxy and no_proxy in the environment, or proxies in daemon.json."
        return Trouble(Unreachable(words, remedy=remedy), passes=True, is_of_connecting=True)
    for error in chain:
        if isinstance(error, socket.gaierror):
            passes = error.errno == socket.EAI_AGAIN
            unknown = Unreachable(f"{shown} is not known: {_words(error)}", remedy=_NETWORK)
            return Trouble(unknown, passes=passes, is_of_connecting=True)
        if isinstance(error, TooSlow):
            return Trouble(Unreachable(f"{shown} was given up: {error}", remedy=_AGAIN), passes=True)
    if any(isinstance(error, TimeoutError) and "handshake" in str(error) for error in chain):
        words = f"{shown} does not answer: no TLS within {settings.connect_timeout:g} s"
        silent = Unreachable(words, remedy=_NETWORK)
        return Trouble(silent, passes=True, is_of_connecting=True, is_of_scheme=True)
    # Before ConnectTimeoutError, of which urllib3 makes it a kind.
    if any(isinstance(error, urllib3s.NewConnectionError) for error in chain):
        remedy = "Look whether it runs there, and whether the port is right."
        unreachable = Unreachable(f"{shown} cannot be reached: {_words(chain[-1])}", remedy=remedy)
        return Trouble(unreachable, passes=True, is_of_connecting=True)
    if any(isinstance(error, urllib3s.ConnectTimeoutError) for error in chain):
        words = f"{shown} does not answer: no connection within {settings.connect_timeout:g} s"
        return Trouble(Unreachable(words, remedy=_NETWORK), passes=True, is_of_connecting=True)
    if any(isinstance(error, urllib3s.ReadTimeoutError | TimeoutError) for error in chain):
        words = f"{shown} was silent for {settings.read_timeout:g} s"
        return Trouble(Unreachable(words, remedy=_AGAIN), passes=True)
    if any(isinstance(error, urllib3s.LocationValueError | http.client.InvalidURL | ValueError) for error in chain):
        remedy = "Tell those who run it."
        return Trouble(RegistryError(f"{place(url)} is no usable URL", remedy=remedy), passes=False)
    last = chain[-1]
    if isinstance(last, http.client.RemoteDisconnected):
        words = "it hung up without an answer"
    elif isinstance(last, http.client.IncompleteRead):
        words = "it broke off in the middle"
    elif isinstance(last, http.client.HTTPException):
        words = f"its answer is not HTTP ({type(last).__name__})"
    else:
        words = _words(last)
    failed = Unreachable(f"the connection to {shown} failed: {words}", remedy=_AGAIN)
    return Trouble(failed, passes=True, is_of_scheme=True)


def _chain(cause: BaseException) -> list[BaseException]:
    """The error and those that led to it, which urllib3 keeps in several ways."""
    found: list[BaseException] = []
    waiting: list[object] = [cause]
    while waiting and len(found) < 20:
        error = waiting.pop(0)
        if not isinstance(error, BaseException) or any(error is known for known in found):
            continue
        found.append(error)
        waiting += [error.__cause__, getattr(error, "original_error", None), getattr(error, "reason", None)]
        waiting += [argument for argument in error.args if isinstance(argument, BaseException)]
        if error.__cause__ is None:
            waiting.append(error.__context__)
    return found


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return printable(error.strerror)
    return printable(error) or type(error).__name__


_OTHER_NAME = (62, 64)
_NOT_NOW = (9, 10)
"""OpenSSL's X509_V_ERR codes: another host name or address; not yet, or no longer, valid."""


def _untrusted(error: ssl.SSLCertVerificationError, host: str, settings: Settings) -> CertificateError:
    if error.verify_code in _OTHER_NAME:
        remedy = "Use the name that its certificate is for, or ask who runs it to have this one put in."
    elif error.verify_code in _NOT_NOW:
        remedy = "Look at the clock of this machine, then ask who runs the registry to renew it."
    else:
        remedy = f"Put the certificate of its authority into {_place(settings, host)}/ca.crt."
    return CertificateError(
        f"the certificate of {host} is not trusted: {printable(error.verify_message or error.reason)}",
        remedy=f"{remedy} Only a registry that is not to be checked belongs into insecure-registries of daemon.json.",
    )


def _of_tls(error: ssl.SSLError, host: str, settings: Settings) -> Trouble:
    reason = str(error.reason or "")
    if any(word in reason for word in _CERTIFICATE_MISSING):
        words = f"{host} refuses our certificate, or wants one: {printable(reason)}"
        remedy = f"Put client.cert and client.key into {_place(settings, host)}."
        return Trouble(CertificateError(words, remedy=remedy), passes=False)
    if isinstance(error, ssl.SSLEOFError):
        remedy = f"Does it want a certificate of ours? {_place(settings, host)} is for that. Else try again later."
        words = f"{host} hung up in the middle of TLS"
        return Trouble(Unreachable(words, remedy=remedy), passes=True, is_of_scheme=True)
    words = f"{host} does not speak TLS as we do: {printable(reason or error)}"
    remedy = "If it speaks plain HTTP and that will do, name it in insecure-registries of daemon.json."
    return Trouble(Unreachable(words, remedy=remedy), passes=False, is_of_connecting=True, is_of_scheme=True)


def _place(settings: Settings, host: str) -> str:
    """Where certificates for a host go."""
    return f"{settings.certificate_folders[-1]}/{host}" if settings.certificate_folders else f"certs.d/{host}"
