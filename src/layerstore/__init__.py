"""layerstore: stores container image layers, and turns a stack of them into a filesystem.

The public names, and nothing else. They are imported when they are first used: `import layerstore` costs nothing.
"""

from __future__ import annotations

# Type checkers take it for true, whatever its value; the module `typing` would cost more than all else here.
TYPE_CHECKING = False

__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from layerstore import patterns as patterns
    from layerstore import platforms as platforms
    from layerstore import reference as reference
    from layerstore import registry as registry
    from layerstore.changes import Change, Changes, Kind
    from layerstore.check import Problem, Subject
    from layerstore.compression import open_stream
    from layerstore.config import Config
    from layerstore.containers import Args, Checkpoint, Container, ContainerState, Mounted, Process, Running
    from layerstore.copying import Copied
    from layerstore.database import Database, Tables, Transaction
    from layerstore.digest import ChainID, DiffID, ImageID
    from layerstore.errors import (
        Ambiguous,
        CannotCopy,
        CannotRepresent,
        CannotRun,
        CannotStart,
        CertificateError,
        ConfigError,
        Damaged,
        Denied,
        DepthExceeded,
        DigestMismatch,
        DriverFailed,
        DriverMismatch,
        DriverNotFound,
        DriverNotSupported,
        InUse,
        InvalidArchive,
        InvalidDigest,
        InvalidReference,
        KernelError,
        LayerstoreError,
        LimitExceeded,
        NameInUse,
        NotFound,
        RateLimited,
        ReadOnlyStore,
        RegistryError,
        StoreClosed,
        Unauthorized,
        Unreachable,
        UnsupportedMediaType,
    )
    from layerstore.images import History, Image, Loaded, Removal, Scratch
    from layerstore.info import Info
    from layerstore.kernel.files import open_beneath
    from layerstore.kernel.mounts import open_bind, open_memory, open_mount
    from layerstore.kernel.namespaces import IdMap, IdRange
    from layerstore.kernel.processes.housing import Bind, Tmpfs
    from layerstore.layers import LayerSource, StoredLayer
    from layerstore.limits import Limits
    from layerstore.mending import Doomed, Repair
    from layerstore.migration import Migrated
    from layerstore.pruning import Pruned
    from layerstore.rescuing import Rescued
    from layerstore.retention import CachePolicy
    from layerstore.rootless import unshare
    from layerstore.store import Store
    from layerstore.store import migrate_store as migrate
    from layerstore.store import open_store as open
    from layerstore.store import rescue_store as rescue
    from layerstore.tar import EntryKind, LayerEntry
    from layerstore.usage import ContainerUsage, DiskUsage, ImageUsage, LayerUsage, VolumeUsage
    from layerstore.volumes import Attachment, PrunedVolumes, Use, Volume, VolumeMount, Volumes

__all__ = [
    "Ambiguous",
    "Args",
    "Attachment",
    "Bind",
    "CachePolicy",
    "CannotCopy",
    "CannotRepresent",
    "CannotRun",
    "CannotStart",
    "CertificateError",
    "ChainID",
    "Change",
    "Changes",
    "Checkpoint",
    "Config",
    "ConfigError",
    "Container",
    "ContainerState",
    "ContainerUsage",
    "Copied",
    "Damaged",
    "Database",
    "Denied",
    "DepthExceeded",
    "DiffID",
    "DigestMismatch",
    "DiskUsage",
    "Doomed",
    "DriverFailed",
    "DriverMismatch",
    "DriverNotFound",
    "DriverNotSupported",
    "EntryKind",
    "History",
    "IdMap",
    "IdRange",
    "Image",
    "ImageID",
    "ImageUsage",
    "InUse",
    "Info",
    "InvalidArchive",
    "InvalidDigest",
    "InvalidReference",
    "KernelError",
    "Kind",
    "LayerEntry",
    "LayerSource",
    "LayerUsage",
    "LayerstoreError",
    "LimitExceeded",
    "Limits",
    "Loaded",
    "Migrated",
    "Mounted",
    "NameInUse",
    "NotFound",
    "Problem",
    "Process",
    "Pruned",
    "PrunedVolumes",
    "RateLimited",
    "ReadOnlyStore",
    "RegistryError",
    "Removal",
    "Repair",
    "Rescued",
    "Running",
    "Scratch",
    "Store",
    "StoreClosed",
    "StoredLayer",
    "Subject",
    "Tables",
    "Tmpfs",
    "Transaction",
    "Unauthorized",
    "Unreachable",
    "UnsupportedMediaType",
    "Use",
    "Volume",
    "VolumeMount",
    "VolumeUsage",
    "Volumes",
    "__version__",
    "migrate",
    "open",
    "open_beneath",
    "open_bind",
    "open_memory",
    "open_mount",
    "open_stream",
    "patterns",
    "platforms",
    "reference",
    "registry",
    "rescue",
    "unshare",
]

_HOMES = {
    "changes": ("Change", "Changes", "Kind"),
    "check": ("Problem", "Subject"),
    "compression": ("open_stream",),
    "config": ("Config",),
    "containers": ("Args", "Checkpoint", "Container", "ContainerState", "Mounted", "Process", "Running"),
    "copying": ("Copied",),
    "database": ("Database", "Tables", "Transaction"),
    "digest": ("ChainID", "DiffID", "ImageID"),
    "images": ("History", "Image", "Loaded", "Removal", "Scratch"),
    "info": ("Info",),
    "kernel.files": ("open_beneath",),
    "kernel.namespaces": ("IdMap", "IdRange"),
    "kernel.mounts": ("open_bind", "open_memory", "open_mount"),
    "kernel.processes.housing": ("Bind", "Tmpfs"),
    "layers": ("LayerSource", "StoredLayer"),
    "limits": ("Limits",),
    "mending": ("Doomed", "Repair"),
    "migration": ("Migrated",),
    "pruning": ("Pruned",),
    "rescuing": ("Rescued",),
    "retention": ("CachePolicy",),
    "rootless": ("unshare",),
    "store": ("Store",),
    "tar": ("EntryKind", "LayerEntry"),
    "usage": ("ContainerUsage", "DiskUsage", "ImageUsage", "LayerUsage", "VolumeUsage"),
    "volumes": ("Attachment", "PrunedVolumes", "Use", "Volume", "VolumeMount", "Volumes"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = next((module for module, names in _HOMES.items() if name in names), "errors")
    if name in ("patterns", "platforms", "reference", "registry"):  # of which more than one name is public
        value = import_module(f"layerstore.{name}")
    elif name in ("migrate", "open", "rescue"):
        value = getattr(import_module("layerstore.store"), f"{name}_store")
    else:
        value = getattr(import_module(f"layerstore.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
