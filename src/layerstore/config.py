"""daemon.json: where a store lies, which driver keeps it, and how registries are reached.

The keys are docker's, so that a daemon.json written for dockerd can be taken as it is: what does not concern a store is
ignored, what neither knows is an error. A missing file is normal. Values are checked here, once; the options of a
driver are turned into its own class, which alone knows what they mean.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import evolve, field, fields_dict

from layerstore import storage_conf
from layerstore.access import Access
from layerstore.daemon_keys import DOCKERS
from layerstore.errors import ConfigError, remedy_for
from layerstore.limits import SETTINGS, SIZES, Limits
from layerstore.storage_conf import Advice
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.retention import CachePolicy

__all__ = [
    "DEFAULT_FILE",
    "INSIDE",
    "Config",
    "Engine",
    "Proxies",
    "driver_options",
    "given",
    "is_store",
    "load",
    "owner_of",
    "root_of",
    "with_overrides",
]

DEFAULT_FILE = Path("/etc/layerstore/daemon.json")

INSIDE = "LAYERSTORE_UNSHARED"
"""Set in the environment of what runs in an ordinary user's namespace: that user's number, for there it is root."""


def _folder_of(variable: str, under_home: str) -> Path | None:
    """A folder of an ordinary user (XDG Base Directory Specification); None for root, who has the machine's."""
    inside = os.environ.get(INSIDE, "")
    if os.geteuid() == 0 and not inside:
        return None
    named = os.environ.get(variable, "")
    if os.path.isabs(named):
        return Path(named) / "layerstore"
    home = os.environ.get("HOME", "")
    if not os.path.isabs(home):
        import pwd

        uid = int(inside) if inside.isdecimal() else os.getuid()
        try:
            home = pwd.getpwuid(uid).pw_dir
        except KeyError:
            raise ConfigError(f"user {uid} has no home, where its store would be", remedy="Set HOME.") from None
    return Path(home) / under_home / "layerstore"


def _data_root() -> Path:
    return _folder_of("XDG_DATA_HOME", ".local/share") or Path("/var/lib/layerstore")


def _exec_root() -> Path:
    return _folder_of("XDG_RUNTIME_DIR", ".cache") or Path("/run/layerstore")


def _default_file() -> Path:
    own = _folder_of("XDG_CONFIG_HOME", ".config")
    return DEFAULT_FILE if own is None else own / "daemon.json"


Options = TypeVar("Options")


@frozen
class Proxies:
    """docker's `proxies`: what daemon.json says instead of the environment. None: the environment's."""

    http: str | None = None
    https: str | None = None
    none_for: str | None = None
    """`no-proxy`: hosts, domains, addresses and networks that are reached directly, separated by commas."""


@frozen
class Engine:
    """One of docker's `runtimes`: a program that runs containers, and what it is always told first."""

    name: str
    path: str
    """A path, or a command of PATH. Empty: a shim of containerd (`runtimeType`), which only containerd can run."""
    args: tuple[str, ...] = ()


def _absolute(path: str | Path) -> Path:
    """What it means now: others are told of it whose working directory is another, and ours may become another."""
    return Path(path).absolute()


@frozen
class Config:
    """What daemon.json and the command line say together. `source`: the file that it comes from, if there was one."""

    data_root: Path = field(factory=_data_root, converter=_absolute)
    exec_root: Path = field(factory=_exec_root, converter=_absolute)
    storage_driver: str | None = None
    storage_opts: tuple[str, ...] = ()
    source: Path | None = None

    insecure_registries: tuple[str, ...] = ()
    """Registries (`host`, `host:port`) and networks (`10.0.0.0/8`) whose certificates are not checked, and which may
    speak plain HTTP."""
    registry_mirrors: tuple[str, ...] = ()
    """URLs of registries that are asked before Docker Hub is, and for what comes from there only."""
    max_concurrent_downloads: int = 3
    """Layers of one image that are fetched at the same time; 0: as many as there are."""
    max_concurrent_uploads: int = 5
    """Layers of one image that are sent at the same time; 0: as many as there are."""
    max_download_attempts: int = 5
    """How often one thing is asked for before that is an error."""
    proxies: Proxies = field(factory=Proxies)
    keep_blobs: bool = False
    """Keep the compressed layers that registries sent, so that they can be sent on as they were."""
    remotes: tuple[str, ...] = ()
    """Where layers are looked for before the registry of their image is asked, in this order."""
    attach: tuple[str, ...] = ()
    """Stores of others whose images are there to be used, where they lie: `docker:/var/lib/docker`."""
    push_through: bool = False
    """Give the first of the remotes what a registry had to be asked for."""
    ignore_policy: bool = False
    """Pull whatever registries.conf and policy.json of containers/image say, and from where the name says."""
    engines: tuple[Engine, ...] = ()
    """`runtimes`: programs that run containers, beside those of PATH."""
    default_engine: str | None = None
    """`default-runtime`: which of them, or of PATH, where nobody names one."""
    limits: Limits = field(factory=Limits)
    """`max-layer-size` and its like: how much is taken in."""
    build_cache: int | None = None
    """`builder`, `gc`, `defaultKeepStorage`: bytes that the cache of builds may take; None: there is no limit."""
    build_policies: tuple[CachePolicy, ...] = ()
    """`builder`, `gc`, `policy`: what goes after each build, instead of that limit."""
    large_context: int = 500 << 20
    """`builder`, `largeContext`: bytes of a context that a build may look at without a warning; 0: it never warns."""
    advice: Advice = field(factory=Advice)
    """podman's storage.conf, where there is no daemon.json."""
    access: Access = field(factory=Access)
    """What one call says of registries, beside the file."""


_STORE = ("data-root", "exec-root", "storage-driver", "storage-opts")
_SWITCHES = ("keep-blobs", "push-through", "ignore-policy")
_LEAST = {"max-concurrent-downloads": 0, "max-concurrent-uploads": 0, "max-download-attempts": 1}
"""Keys that are numbers, with the least that docker allows."""
_OURS = (
    *_STORE,
    *("insecure-registries", "registry-mirrors", *_LEAST, "proxies", "remotes", "attach", *_SWITCHES),
    *("runtimes", "default-runtime", "builder"),
    *SETTINGS,
)

_MEND = "Mend the file: it is one JSON object, as docker's daemon.json is."
_FORMER = {"graph": "data-root"}
"""Keys that docker has renamed: to ignore one would put the store where its owner does not want it."""


def load(path: Path | None = None) -> Config:
    """The configuration in `path`, or in /etc/layerstore/daemon.json if that exists.

    Ordinary users have the latter in $XDG_CONFIG_HOME/layerstore (~/.config/layerstore).
    """
    file = _default_file() if path is None else path
    try:
        text = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if path is None:
            return Config(advice=storage_conf.read(rootless=_folder_of("XDG_CONFIG_HOME", ".config") is not None))
        raise ConfigError(f"{file}: no such file", remedy="Name a daemon.json that exists.", path=file) from None
    except OSError as error:
        raise ConfigError(
            f"{file}: {error.strerror}", remedy=remedy_for(error.errno), path=file, errno=error.errno
        ) from None
    return _parsed(text, file)


def given(config: Config | str | Path | None) -> Config:
    """A configuration that somebody names: as it is, or read from there; None is the usual one."""
    return config if isinstance(config, Config) else load(None if config is None else Path(config))


def with_overrides(
    config: Config,
    *,
    data_root: Path | None = None,
    storage_driver: str | None = None,
    storage_opts: Sequence[str] = (),
    attach: Sequence[str] = (),
) -> Config:
    """`config` with what the caller or the command line says instead. Options are added, and the later one counts.

    Another driver than the file's takes over none of the options that the file has for its own.
    """
    opts = config.storage_opts
    if storage_driver is not None and storage_driver != config.storage_driver:
        opts = tuple(opt for opt in opts if opt.startswith(f"{storage_driver}."))
    return evolve(
        config,
        data_root=config.data_root if data_root is None else data_root,
        storage_driver=storage_driver or config.storage_driver,
        storage_opts=(*opts, *storage_opts),
        attach=tuple(dict.fromkeys((*config.attach, *attach))),
    )


def root_of(data_root: str | Path | None) -> Path | None:
    """A data-root that a caller gave, as an absolute path. Raises `ConfigError` for an empty one, which is none."""
    if data_root is None:
        return None
    if not os.fspath(data_root):
        raise ConfigError("the name of the data-root is empty", remedy="Name a folder, or leave it out.")
    return Path(data_root).absolute()


def owner_of(opt: str) -> str:
    """The driver whose option `overlay2.size=10G` is."""
    return opt.partition("=")[0].strip().lower().partition(".")[0]


def driver_options(config: Config, driver: str, options: type[Options]) -> Options:
    """The options of `driver`, as an instance of its own class: `overlay2.size=10G` is `options(size="10G")`."""
    fields = fields_dict(cast(Any, options))
    values: dict[str, Any] = {}
    for opt in (*config.advice.of(driver), *config.storage_opts):
        key, has_value, text = opt.partition("=")
        owner, has_name, name = key.strip().lower().partition(".")
        if not has_value or not has_name:
            raise _bad(config, f"storage-opts: {opt!r} is not of the form {driver}.OPTION=VALUE")
        if owner != driver:
            from difflib import get_close_matches

            remedy = f"Leave it out, or set storage-driver to {owner}."
            if name in fields and get_close_matches(owner, [driver], cutoff=0.8):  # overlay.size
                remedy = f"Did you mean '{driver}.{name}'?"
            raise _bad(
                config, f"storage-opts: {opt!r} is an option of {owner}, but the storage driver is {driver}", remedy
            )
        if name not in fields:
            raise _bad(config, f"storage-opts: {driver} has no option {name!r}", _nearest(name, list(fields), "option"))
        converter: Any = fields[name].converter
        try:
            values[name] = text if converter is None else converter(text.strip())
        except ValueError as error:
            raise _bad(config, f"storage-opts: {driver}.{name}: {text!r} is not {error}") from None
    try:
        return options(**values)
    except ValueError as error:  # each may be good, and all together not
        raise _bad(config, f"storage-opts: {driver} wants {error}") from None


# ---- the file


def _parsed(text: bytes, file: Path) -> Config:
    try:
        content = json.loads(text or b"{}")
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not a text in UTF-8", remedy=_MEND, path=file) from None
    except RecursionError:
        raise ConfigError(f"{file}: nested too deeply", remedy=_MEND, path=file) from None
    except json.JSONDecodeError as error:
        where = f"{file}, line {error.lineno}, column {error.colno}"
        raise ConfigError(f"{where}: {error.msg}", remedy=_MEND, path=file) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: must be a JSON object, {{…}}", remedy=_MEND, path=file)
    for key in content:
        if key in _FORMER:
            raise ConfigError(f"{file}: {key!r} is called {_FORMER[key]!r} now", path=file)
        if key not in _OURS and key not in DOCKERS:
            raise ConfigError(
                f"{file}: unknown key {key!r}",
                remedy=_nearest(key, [*_OURS, *sorted(DOCKERS)], "key", few=_OURS),
                path=file,
            )
    values: dict[str, Any] = {}
    for key in ("data-root", "exec-root"):
        if key in content:
            values[key.replace("-", "_")] = _folder(content[key], key, file)
    if content.get("storage-driver") not in (None, ""):
        values["storage_driver"] = _string(content["storage-driver"], "storage-driver", file, "the name of a driver")
    if "storage-opts" in content:
        opts = content["storage-opts"]
        if not isinstance(opts, list) or not all(isinstance(opt, str) for opt in opts):
            raise _bad_value(file, "storage-opts", opts, 'a list of strings such as ["overlay2.size=10G"]')
        values["storage_opts"] = tuple(opts)
    values["limits"] = _limits(content, file)
    values |= _of_builds(content.get("builder", {}), file)
    return Config(**values, **_of_registries(content, file), **_of_engines(content, file), source=file)


def _limits(content: Mapping[str, object], file: Path) -> Limits:
    """How much is taken in."""
    from layerstore.options import size

    values = {}
    for key in SETTINGS.keys() & content.keys():
        value = content[key]
        allowed = 'a size such as "10g"; 0 is no limit' if key in SIZES else "a number; 0 is no limit"
        try:
            if isinstance(value, bool) or not isinstance(value, str | int if key in SIZES else int):
                raise ValueError
            number = size(value)
        except ValueError:
            raise _bad_value(file, key, value, allowed) from None
        if number is None or not 0 <= number < 1 << 63:
            raise _bad_value(file, key, value, allowed)
        values[SETTINGS[key]] = number
    return Limits(**values)


def _of_builds(builder: object, file: Path) -> dict[str, Any]:
    from layerstore.retention import settings_of

    try:
        return settings_of(builder)
    except ValueError as error:
        raise ConfigError(f"{file}: builder: {error}", path=file) from None


def _of_engines(content: Mapping[str, object], file: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if content.get("default-runtime") not in (None, ""):
        values["default_engine"] = _string(content["default-runtime"], "default-runtime", file, "the name of a runtime")
    found = content.get("runtimes", {})
    if not isinstance(found, dict):
        raise _bad_value(file, "runtimes", found, _RUNTIMES)
    values["engines"] = tuple(_engine(name, told, file) for name, told in found.items())
    return values


_RUNTIMES = '{"NAME": {"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]}, …}'


def _engine(name: str, told: object, file: Path) -> Engine:
    """One of `runtimes`."""
    if not isinstance(told, dict):
        raise _bad_value(file, f"runtimes: {name}", told, _RUNTIMES)
    if "runtimeType" in told:
        return Engine(name, "")
    args = told.get("runtimeArgs") or []
    if not isinstance(args, list) or not all(isinstance(arg, str) and _is_plain(arg) for arg in args):
        raise _bad_value(file, f"runtimes: {name}: runtimeArgs", args, "a list of strings")
    path = _string(told.get("path"), f"runtimes: {name}: path", file, "the path of an OCI runtime")
    return Engine(name, path, tuple(args))


def _of_registries(content: Mapping[str, object], file: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, (is_right, allowed) in _LISTS.items():
        if key in content:
            items = content[key]
            if not isinstance(items, list) or not all(isinstance(item, str) and is_right(item) for item in items):
                raise _bad_value(file, key, items, allowed)
            values[key.replace("-", "_")] = tuple(items)
    for key, least in _LEAST.items():
        if key in content:
            number = content[key]
            if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= _MOST:
                raise _bad_value(file, key, number, f"a number from {least} to {_MOST}")
            values[key.replace("-", "_")] = number
    for key in _SWITCHES:
        if key in content:
            if not isinstance(content[key], bool):
                raise _bad_value(file, key, content[key], "true or false")
            values[key.replace("-", "_")] = content[key]
    if "proxies" in content:
        values["proxies"] = _proxies(content["proxies"], file)
    return values


_MOST = 10_000
_PROXIES = {"http-proxy": "http", "https-proxy": "https", "no-proxy": "none_for"}


def _proxies(value: object, file: Path) -> Proxies:
    allowed = '{"http-proxy": URL, "https-proxy": URL, "no-proxy": "host,.domain,10.0.0.0/8"}'
    if not isinstance(value, dict):
        raise _bad_value(file, "proxies", value, allowed)
    for key in value:
        if key not in _PROXIES:
            raise ConfigError(
                f"{file}: proxies has an unknown key {key!r}", remedy=_nearest(key, list(_PROXIES), "key"), path=file
            )
        if not isinstance(value[key], str) or not _is_plain(value[key]):
            # The value is not repeated: a proxy's URL may have a password in it.
            raise ConfigError(f"{file}: {key} of proxies must be a string", remedy=_MEND, path=file)
    return Proxies(**{name: value[key] or None for key, name in _PROXIES.items() if key in value})


def _is_plain(text: str) -> bool:
    return text.isprintable() and _encodable(text)


def _is_word(text: str) -> bool:
    return bool(text) and _is_plain(text) and not any(char.isspace() for char in text)


def is_store(text: str) -> bool:
    """`KIND:/path` of a store of others. Which kinds there are, `attached` knows."""
    kind, colon, path = text.partition(":")
    return _is_plain(text) and kind.isalpha() and bool(colon) and os.path.isabs(path)


def _is_registry(text: str) -> bool:
    """`host`, `host:port` or `10.0.0.0/8`; docker takes a scheme before it, too, and so do we."""
    host = text.removeprefix("http://").removeprefix("https://")
    network, slash, bits = host.partition("/")
    return _is_word(host) and bool(network) and (not slash or (bits.isascii() and bits.isdecimal())) and "@" not in host


def _is_mirror(text: str) -> bool:
    scheme, separator, rest = text.partition("://")
    is_url = _is_word(text) and bool(separator) and scheme.lower() in ("http", "https")
    return is_url and bool(rest.partition("/")[0]) and not any(char in rest for char in "@?#")


_LISTS: dict[str, tuple[Callable[[str], bool], str]] = {
    "insecure-registries": (_is_registry, 'a list such as ["registry.example:5000", "10.0.0.0/8"]'),
    "registry-mirrors": (_is_mirror, 'a list of URLs such as ["https://mirror.example"], without a password'),
    "attach": (is_store, 'a list such as ["docker:/var/lib/docker"], each with an absolute path'),
    "remotes": (_is_word, 'a list of strings such as ["https://peer.example:5000"]'),
}


def _folder(value: object, key: str, file: Path) -> Path:
    folder = Path(_string(value, key, file, "an absolute path"))
    if not folder.is_absolute():
        raise _bad_value(file, key, value, "an absolute path")
    return folder


def _string(value: object, key: str, file: Path, allowed: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value or not _encodable(value):
        raise _bad_value(file, key, value, allowed)
    return value


def _encodable(text: str) -> bool:
    """JSON can hold halves of characters, which no name of a file can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# ---- errors


def _bad_value(file: Path, key: str, value: object, allowed: str) -> ConfigError:
    shown = json.dumps(value)
    # A URL may have a password in it.
    return ConfigError(f"{file}: {key} must be {allowed}{'' if '@' in shown else f', not {shown}'}", path=file)


def _bad(config: Config, message: str, remedy: str | None = None) -> ConfigError:
    where = "" if config.source is None else f"{config.source}: "
    return ConfigError(f"{where}{message}", remedy=remedy, path=config.source)


def _nearest(name: str, known: Sequence[str], what: str, few: Sequence[str] | None = None) -> str:
    """Which name may have been meant; `few`: those to list when none is near."""
    from difflib import get_close_matches

    near = get_close_matches(name.lower(), known, n=1)
    if near:
        return f"Did you mean {near[0]!r}?"
    listed = few or known
    return f"The {what}s are {', '.join(listed)}." if listed else f"It has no {what}s."
