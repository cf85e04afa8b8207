"""What the values of docker's run options mean: sizes, spans of time, limits, devices, hosts, signals. Pure.

Each function takes the text as it was given, and raises `ValueError` with docker's sentence where it means nothing.
"""

from __future__ import annotations

import re
import signal
from typing import Final

from layerstore.runtime.options import Device, Isolation, Ulimit

_UNITS: Final = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
# Go's durations, in seconds; its micro is written as either of two characters that look alike.
_SPANS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SPAN: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LIMITS: Final = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
_SYSCTLS: Final = "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced"
"""Those of `kernel.` that an IPC namespace has for itself."""
_STREAMS: Final = ("stdin", "stdout", "stderr")


def size(text: str) -> int:
    """Bytes: `512m`, `1.5GiB`, `100`; units are binary, as in go-units' RAMInBytes."""
    last = max((place for place, character in enumerate(text) if character in "0123456789. "), default=-1)
    if last < 0:
        raise ValueError(f"invalid size: '{text}'")
    number = text[: last if text[last] == " " else last + 1]
    suffix = text[last + 1 :].lower()
    if not _NUMBER.fullmatch(number):
        raise ValueError(f"invalid size: '{text}'")
    value = float(number)
    if value < 0:
        raise ValueError(f"invalid size: '{text}'")
    if suffix in ("", "b"):
        return int(value)
    if suffix[0] not in _UNITS or suffix[1:] not in ("", "b", "ib"):
        raise ValueError(f"invalid suffix: '{suffix}'")
    return int(value * _UNITS[suffix[0]])


def swap(text: str) -> int:
    """The value of `--memory-swap`: bytes, or -1 for no limit."""
    return -1 if text == "-1" else size(text)


def whole(text: str) -> int:
    """A whole number in decimal."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def processors(text: str) -> float:
    """The value of `--cpus`: a decimal number or a fraction, to a billionth."""
    from fractions import Fraction

    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if (value * 10**9).denominator != 1:
        raise ValueError("value is too precise")
    return float(value)


def duration(text: str) -> float:
    """A span of time as Go writes them (`1m30s`, `500ms`), in seconds."""
    sign = -1.0 if text.startswith("-") else 1.0
    bare = text[1:] if text[:1] in ("-", "+") else text
    if bare == "0":
        return 0.0
    if not re.fullmatch(f"(?:{_SPAN.pattern})+", bare):
        what = "missing unit in" if re.fullmatch(r"(\d+\.?\d*|\.\d+)", bare) else "invalid"
        raise ValueError(f'time: {what} duration "{text}"')
    return sign * sum(float(number) * _SPANS[unit] for number, unit in _SPAN.findall(bare))


def variable(text: str) -> str:
    """The value of `-e`: `NAME=value`, or `NAME` alone, which is looked up in our own environment later."""
    if not text.partition("=")[0]:
        raise ValueError(f"invalid environment variable: {text}")
    return text


def variable_name(text: str) -> str:
    """The value of `--unsetenv`."""
    if not text or "=" in text:
        raise ValueError(f"invalid name of a variable: {text}")
    return text


def label(text: str) -> tuple[str, str]:
    """The value of `-l`: `KEY=value` or `KEY`."""
    name, _, value = text.partition("=")
    if not name:
        raise ValueError(f"invalid label '{text}': empty name")
    return name, value


def annotation(text: str) -> tuple[str, str]:
    """The value of `--annotation`: as a label."""
    name, _, value = text.partition("=")
    if not name:
        raise ValueError(f"invalid annotation '{text}': empty name")
    return name, value


def sysctl(text: str) -> tuple[str, str]:
    """The value of `--sysctl`: one of those that a namespace has for itself, and its value."""
    name, equals, value = text.partition("=")
    kernel = [f"kernel.{known}" for known in _SYSCTLS.split()]
    if not equals or not (name in kernel or name.startswith(("net.", "fs.mqueue."))):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return name, value


def ulimit(text: str) -> Ulimit:
    """The value of `--ulimit`: `NAME=SOFT[:HARD]`; -1 is unlimited."""
    name, equals, numbers = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _LIMITS.split():
        raise ValueError(f"invalid ulimit type: {name}")
    parts = numbers.split(":")
    if len(parts) > 2:
        raise ValueError(f"too many limit value arguments - {numbers}, can only have up to two, `soft[:hard]`")
    soft, hard = whole(parts[0]), whole(parts[-1])
    if hard != -1 and soft == -1:
        raise ValueError(
            f"ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
        )
    if hard != -1 and soft > hard:
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return Ulimit(name, soft, hard)


def device(text: str) -> Device:
    """The value of `--device`: `HOST[:CONTAINER][:rwm]`."""
    parts = text.split(":")
    if not parts[0] or len(parts) > 3:
        raise ValueError(f"bad format for path: {text}")
    host, target, mode = parts[0], parts[0], "rwm"
    if len(parts) == 2:
        target, mode = (host, parts[1]) if _is_device_mode(parts[1]) else (parts[1], mode)
    elif len(parts) == 3:
        target, mode = parts[1:]
        if not _is_device_mode(mode):
            raise ValueError(f"bad mode specified: {mode}")
    for path in (host, target):
        if not path.startswith("/"):
            raise ValueError(f"{path} is not an absolute path")
    return Device(host, target, mode)


def _is_device_mode(text: str) -> bool:
    return 0 < len(text) == len(set(text)) and set(text) <= set("rwm")


def host(text: str) -> str:
    """The value of `--add-host`, `NAME:ADDRESS` or `NAME=ADDRESS`, as `NAME:ADDRESS`."""
    name, found, address = text.partition("=" if "=" in text else ":")
    if not found or not name:
        raise ValueError(f'bad format for add-host: "{text}"')
    address = address.removeprefix("[").removesuffix("]")
    if address != "host-gateway" and not _is_address(address):
        raise ValueError(f'invalid IP address in add-host: "{address}"')
    return f"{name}:{address}"


def nameserver(text: str) -> str:
    """The value of `--dns`: an address."""
    if not _is_address(text.strip()):
        raise ValueError(f"IP address is not correctly formatted: {text}")
    return text.strip()


def search_domain(text: str) -> str:
    """The value of `--dns-search`: a domain, or `.` for none."""
    bare = text.strip(" ")
    if bare != "." and not re.fullmatch(r"(?=.{1,255}$)([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?\.?)+", bare):
        raise ValueError(f"{text} is not a valid domain")
    return bare


def _is_address(text: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def capability(text: str) -> str:
    """The value of `--cap-add` and `--cap-drop`, with CAP_ before it, unless it is ALL."""
    name = text.upper()
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def security(text: str) -> str:
    """The value of `--security-opt`: a word and its value, with `=` or, as of old, a colon between them."""
    if text in ("no-new-privileges", "systempaths=unconfined") or "=" in text:
        return text
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f'invalid --security-opt: "{text}"')
    return f"{name}={value}"


def stream(text: str) -> str:
    """The value of `-a`: a standard stream by its name."""
    if text.lower() not in _STREAMS:
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def isolation(text: str) -> Isolation:
    """The value of `--isolation`; docker's `default` is full."""
    try:
        return Isolation("full" if text in ("", "default") else text)
    except ValueError:
        raise ValueError(f"isolation is one of none, process and full, not {text}") from None


def signal_number(text: str) -> int:
    """A signal by number or name, with SIG or without, in any case: `TERM`, `sigusr1`, `9`, `RTMIN+3`."""
    if text.isascii() and text.isdigit():
        number = int(text)
        if not 1 <= number <= signal.SIGRTMAX:
            raise ValueError(f"invalid signal: {text}")
        return number
    name = text.upper().removeprefix("SIG")
    if match := re.fullmatch(r"RTM(IN\+|AX-)(\d+)", name):
        number = signal.SIGRTMIN + int(match[2]) if match[1] == "IN+" else signal.SIGRTMAX - int(match[2])
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return int(number)
        raise ValueError(f"invalid signal: {text}")
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise ValueError(f"invalid signal: {text}") from None


def stop_signal(text: str) -> str:
    """The value of `--stop-signal`, as it was given."""
    signal_number(text)
    return text


def restart(text: str) -> str:
    """The value of `--restart`: `no`. The others need a daemon that lives on, and there is none."""
    name, _, count = text.partition(":")
    if count and not re.fullmatch(r"-?\d+", count):
        raise ValueError("invalid restart policy format: maximum retry count must be an integer")
    if name in ("always", "unless-stopped", "on-failure"):
        raise ValueError(
            f"restart policy {name} needs a daemon, and layerstore has none: let an init system restart "
            "`layerstore start --attach NAME`"
        )
    if name not in ("", "no"):
        raise ValueError(f"invalid restart policy: unknown policy '{name}'; use 'no'")
    if count:
        raise ValueError("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    return "no"


def pull(text: str) -> str:
    """The value of `--pull`: whether an image is fetched."""
    if text not in ("always", "missing", "never", "newer"):
        raise ValueError(f'invalid pull option: \'{text}\': must be one of "always", "missing" or "never"')
    return text


def namespace(text: str, *, others: tuple[str, ...] = ("host",), title: str, container: bool = True) -> str:
    """The value of `--pid`, `--ipc` and the like: one of a few words, or (`container`) that of another container."""
    name, colon, rest = text.partition(":")
    if text in ("", *others) or (container and name == "container" and colon and rest):
        return text
    raise ValueError(f"invalid {title} mode")


def userns(text: str) -> str:
    """The value of `--userns`: `host`, or INSIDE:OUTSIDE:COUNT, the IDs that a container is mounted for."""
    is_range = len(text.split(":")) == 3 and all(map(str.isdecimal, text.split(":")))
    return text if is_range else namespace(text, title="USER", container=False)


def condition(text: str) -> str:
    """podman's `wait --condition`: what is waited for, of which only an end is known here."""
    if text not in ("stopped", "exited"):
        raise ValueError('what is waited for is "stopped" or "exited"')
    return text


def working_dir(text: str) -> str:
    """The value of `-w`: an absolute path."""
    if text and not text.startswith("/"):
        raise ValueError(f"the working directory '{text}' is invalid, it needs to be an absolute path")
    return text


def log_driver(text: str) -> str:
    """The value of `--log-driver`: in which form output is kept, or that it is not."""
    if text not in ("", "json-file", "k8s-file", "none"):
        raise ValueError(f"log driver {text} is not there; there are: json-file, k8s-file, none")
    return text
