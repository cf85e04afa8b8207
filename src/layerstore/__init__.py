"""layerstore: stores container image layers, and turns a stack of them into a filesystem.

    with layerstore.open("/var/lib/layerstore") as store:
        [image] = store.load("debian.tar")
        with store.create_container(image, name="web") as box:
            with box.mount() as root:
                (root / "etc/motd").write_text("hello\\n")
            assert [str(change) for change in box.changes()] == ["C /etc", "A /etc/motd"]
            box.commit("debian:hello")
            box.remove()

The public names, and nothing else. They are imported when they are first used: `import layerstore` costs nothing. What
each promises from version to version is in docs/promises.md.
"""

from __future__ import annotations

# Type checkers take it for true, whatever its value; the module `typing` would cost more than all else here.
TYPE_CHECKING = False

__version__ = "0.2.0"

if TYPE_CHECKING:
    from typing import Any

    from layerstore import patterns as patterns
    from layerstore import platforms as platforms
    from layerstore import reference as reference
    from layerstore import registry as registry
    from layerstore.access import Access
    from layerstore.attached.adopting import Adopted
    from layerstore.attached.values import AttachedImage
    from layerstore.changes import Change, Changes, Kind
    from layerstore.check import Problem, Subject
    from layerstore.compression import Stream, open_stream
    from layerstore.config import Config, Engine, Proxies
    from layerstore.containers import (
        Args,
        Checkpoint,
        Container,
        ContainerState,
        Mounted,
        Process,
        Running,
        Snapshot,
        Snapshots,
    )
    from layerstore.containers.branching import Quiet
    from layerstore.containers.launching import Stream as StandardStream
    from layerstore.containers.snapshots import Record as ContainerRecord
    from layerstore.copying import Copied
    from layerstore.database import Database, Tables, Transaction
    from layerstore.digest import ChainID, DiffID, Digest, ImageID
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
    from layerstore.images.images import Record as ImageRecord
    from layerstore.images.trees import HasTree
    from layerstore.info import Info
    from layerstore.kernel.files import open_beneath
    from layerstore.kernel.files.descriptors import open_own, read_own
    from layerstore.kernel.mounts import open_bind, open_memory, open_mount
    from layerstore.kernel.namespaces import IdMap, IdRange
    from layerstore.kernel.processes.housing import Bind, Tmpfs
    from layerstore.layers import LayerSource, Progress, StoredLayer
    from layerstore.layers import Record as LayerRecord
    from layerstore.layers.relay import Write
    from layerstore.limits import Limits
    from layerstore.mending import Doomed, Mended, Repair
    from layerstore.migration import Migrated
    from layerstore.pruning import Pruned
    from layerstore.rescuing import Rescued
    from layerstore.retention import CachePolicy
    from layerstore.rootless import unshare
    from layerstore.storage_conf import Advice
    from layerstore.store import Store
    from layerstore.store import migrate_store as migrate
    from layerstore.store import open_store as open
    from layerstore.store import rescue_store as rescue
    from layerstore.tar import EntryKind, LayerEntry, Readable
    from layerstore.trees import Entry, Tree
    from layerstore.usage import ContainerUsage, DiskUsage, ImageUsage, LayerUsage, VolumeUsage
    from layerstore.volumes import Attachment, PrunedVolumes, Use, Volume, VolumeMount, VolumeOwner, Volumes

__all__ = [
    "Access",
    "Adopted",
    "Advice",
    "Ambiguous",
    "Args",
    "AttachedImage",
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
    "ContainerRecord",
    "ContainerState",
    "ContainerUsage",
    "Copied",
    "Damaged",
    "Database",
    "Denied",
    "DepthExceeded",
    "DiffID",
    "Digest",
    "DigestMismatch",
    "DiskUsage",
    "Doomed",
    "DriverFailed",
    "DriverMismatch",
    "DriverNotFound",
    "DriverNotSupported",
    "Engine",
    "Entry",
    "EntryKind",
    "HasTree",
    "History",
    "IdMap",
    "IdRange",
    "Image",
    "ImageID",
    "ImageRecord",
    "ImageUsage",
    "InUse",
    "Info",
    "InvalidArchive",
    "InvalidDigest",
    "InvalidReference",
    "KernelError",
    "Kind",
    "LayerEntry",
    "LayerRecord",
    "LayerSource",
    "LayerUsage",
    "LayerstoreError",
    "LimitExceeded",
    "Limits",
    "Loaded",
    "Mended",
    "Migrated",
    "Mounted",
    "NameInUse",
    "NotFound",
    "Problem",
    "Process",
    "Progress",
    "Proxies",
    "Pruned",
    "PrunedVolumes",
    "Quiet",
    "RateLimited",
    "ReadOnlyStore",
    "Readable",
    "RegistryError",
    "Removal",
    "Repair",
    "Rescued",
    "Running",
    "Scratch",
    "Snapshot",
    "Snapshots",
    "StandardStream",
    "Store",
    "StoreClosed",
    "StoredLayer",
    "Stream",
    "Subject",
    "Tables",
    "Tmpfs",
    "Transaction",
    "Tree",
    "Unauthorized",
    "Unreachable",
    "UnsupportedMediaType",
    "Use",
    "Volume",
    "VolumeMount",
    "VolumeOwner",
    "VolumeUsage",
    "Volumes",
    "Write",
    "__version__",
    "migrate",
    "open",
    "open_beneath",
    "open_bind",
    "open_memory",
    "open_mount",
    "open_own",
    "open_stream",
    "patterns",
    "platforms",
    "read_own",
    "reference",
    "registry",
    "rescue",
    "unshare",
]

_HOMES = {
    "access": ("Access",),
    "attached.adopting": ("Adopted",),
    "attached.values": ("AttachedImage",),
    "changes": ("Change", "Changes", "Kind"),
    "check": ("Problem", "Subject"),
    "compression": ("Stream", "open_stream"),
    "config": ("Config", "Engine", "Proxies"),
    "containers": (
        "Args",
        "Checkpoint",
        "Container",
        "ContainerState",
        "Mounted",
        "Process",
        "Running",
        "Snapshot",
        "Snapshots",
    ),
    "containers.branching": ("Quiet",),
    "containers.launching": ("Stream as StandardStream",),
    "containers.snapshots": ("Record as ContainerRecord",),
    "copying": ("Copied",),
    "database": ("Database", "Tables", "Transaction"),
    "digest": ("ChainID", "DiffID", "Digest", "ImageID"),
    "images": ("History", "Image", "Loaded", "Removal", "Scratch"),
    "images.images": ("Record as ImageRecord",),
    "images.trees": ("HasTree",),
    "info": ("Info",),
    "kernel.files": ("open_beneath",),
    "kernel.files.descriptors": ("open_own", "read_own"),
    "kernel.namespaces": ("IdMap", "IdRange"),
    "kernel.mounts": ("open_bind", "open_memory", "open_mount"),
    "kernel.processes.housing": ("Bind", "Tmpfs"),
    "layers": ("LayerSource", "Progress", "Record as LayerRecord", "StoredLayer"),
    "layers.relay": ("Write",),
    "limits": ("Limits",),
    "mending": ("Doomed", "Mended", "Repair"),
    "migration": ("Migrated",),
    "pruning": ("Pruned",),
    "rescuing": ("Rescued",),
    "retention": ("CachePolicy",),
    "rootless": ("unshare",),
    "storage_conf": ("Advice",),
    "store": ("Store", "migrate_store as migrate", "open_store as open", "rescue_store as rescue"),
    "tar": ("EntryKind", "LayerEntry", "Readable"),
    "trees": ("Entry", "Tree"),
    "usage": ("ContainerUsage", "DiskUsage", "ImageUsage", "LayerUsage", "VolumeUsage"),
    "volumes": ("Attachment", "PrunedVolumes", "Use", "Volume", "VolumeMount", "VolumeOwner", "Volumes"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name in ("patterns", "platforms", "reference", "registry"):  # of which more than one name is public
        value = import_module(f"layerstore.{name}")
    else:
        homes = ((home, entry.partition(" as ")) for home, entries in _HOMES.items() for entry in entries)
        found = ((home, own) for home, (own, _, public) in homes if name == (public or own))
        home, own = next(found, ("errors", name))
        value = getattr(import_module(f"layerstore.{home}"), own)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
