"""Files and folders: what `os` and `shutil` cannot do, or do by names that another process could change meanwhile.

`descriptors` opens, `data` shares and copies what files hold, `folders` makes and removes whole folders, `syncing` puts
it all on the disk, `filesystems` tells what a filesystem is and can do. `quota` is about limits on folders. `failure`
makes errors of what the C parts tell.
"""

from layerstore.kernel.files.data import clone_file, copy_data, write_in_place
from layerstore.kernel.files.descriptors import open_beneath, open_tree_root
from layerstore.kernel.files.filesystems import can_reflink, filesystem_type, lists_types
from layerstore.kernel.files.folders import (
    clear_mountpoint,
    copy_root_attributes,
    first_in,
    make_plain,
    make_plain_folder,
    move_away,
    remove_tree,
)
from layerstore.kernel.files.syncing import Writeback, fsync_folder, rename_durably, syncfs

__all__ = [
    "Writeback",
    "can_reflink",
    "clear_mountpoint",
    "clone_file",
    "copy_data",
    "copy_root_attributes",
    "filesystem_type",
    "first_in",
    "fsync_folder",
    "lists_types",
    "make_plain",
    "make_plain_folder",
    "move_away",
    "open_beneath",
    "open_tree_root",
    "remove_tree",
    "rename_durably",
    "syncfs",
    "write_in_place",
]
