"""Files and folders: what `os` and `shutil` cannot do, or do by names that another process could change meanwhile.

`descriptors` opens, `data` shares and copies what files hold, `folders` makes and removes whole folders, `syncing` puts
it all on the disk, `filesystems` tells what a filesystem is and can do. `quota` is about limits on folders. `failure`
makes errors of what the C parts tell.
"""

from layerstore.kernel.files.data import clone_file, copy_data, share_data, share_range, write_in_place
from layerstore.kernel.files.descriptors import open_beneath, open_tree_root
from layerstore.kernel.files.filesystems import can_reflink, filesystem_type, lists_types
from layerstore.kernel.files.folders import (
    Attributes,
    clear_mountpoint,
    copy_root_attributes,
    first_in,
    give_root_attributes,
    make_plain,
    make_plain_folder,
    move_away,
    names_in,
    remove_tree,
)
from layerstore.kernel.files.syncing import Writeback, fsync_folder, rename_durably, syncfs

__all__ = [
    "Attributes",
    "Writeback",
    "can_reflink",
    "clear_mountpoint",
    "clone_file",
    "copy_data",
    "copy_root_attributes",
    "filesystem_type",
    "first_in",
    "fsync_folder",
    "give_root_attributes",
    "lists_types",
    "make_plain",
    "make_plain_folder",
    "move_away",
    "names_in",
    "open_beneath",
    "open_tree_root",
    "remove_tree",
    "rename_durably",
    "share_data",
    "share_range",
    "syncfs",
    "write_in_place",
]
