"""The driver `copies`: every layer is a folder with the whole tree, a stack is its topmost layer."""

import os
import subprocess

from attrs import make_class

from layerstore.driver import Backing, Capabilities, CopyOnWrite, Dialect, Mount, StorageDriver
from layerstore.errors import DriverNotSupported
from layerstore.kernel.files import (
    filesystem_type,
    fsync_folder,
    make_plain_folder,
    remove_tree,
    rename_durably,
    syncfs,
)


class Copies(StorageDriver):
    """Whole trees, made with `cp`."""

    name = "copies"
    options = make_class("Options", [])  # none; each field of the class would be one, `copies.FIELD`
    capabilities = Capabilities(Dialect.MERGED)  # tree() holds the whole stack

    @classmethod
    def probe(cls, home, options):
        folder = next(folder for folder in (home, *home.parents) if folder.is_dir())
        if os.geteuid() != 0 or filesystem_type(folder) == "proc":
            raise DriverNotSupported(f"copies cannot keep files in {folder}", remedy="Run as root, and on a disk.")
        return Backing(filesystem_type(folder), CopyOnWrite.NONE, quota=False)

    def create(self, layer, parents, *, size=None):
        if size is not None:
            raise DriverNotSupported("copies cannot limit the size of a container", remedy="Leave the size out.")
        made = self.staging / layer.key  # where nobody sees it, and a crash leaves it for the core to delete
        try:
            (made / "merged").mkdir(parents=True)
            self.copy(parents[0], made) if parents else make_plain_folder(made / "tree")
            if not layer.is_staged:
                syncfs(made)  # before it can be seen: a copy that is half on the disk would look like a container
                made.rename(self.home / layer.key)  # one step: it is whole, or not there
                fsync_folder(self.home)
        except BaseException:
            if not layer.is_staged:
                self.remove(layer)
            remove_tree(made)
            raise

    def copy(self, parent, made):  # captured, so that an error has what `cp` said
        command = ["cp", "-a", self.tree(parent), made / "tree"]
        subprocess.run(command, check=True, capture_output=True)

    def tree(self, layer):
        return (self.staging if layer.is_staged else self.home) / layer.key / "tree"

    def mounts(self, layer, parents, *, read_only):
        return [Mount("bind", str(self.tree(layer)), read_only=read_only)]

    def seal(self, layer, parents):
        if layer.is_staged:  # a container's tree is what the layer is to be, and where
            rename_durably(self.staging / layer.key, self.home / layer.key)
        return layer.key

    def remove(self, layer):
        if (self.home / layer.key).exists():
            (self.home / layer.key).rename(self.staging / layer.key)

    def keys(self):
        return os.listdir(self.home)
