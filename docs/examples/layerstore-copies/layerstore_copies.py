"""The driver `copies`: every layer is a folder with the whole tree, a stack is its topmost layer."""

import os
import subprocess

from attrs import make_class

from layerstore.driver import Backing, Capabilities, CopyOnWrite, Dialect, LayerKey, Mount, StorageDriver
from layerstore.errors import DriverNotSupported
from layerstore.kernel.files import filesystem_type, fsync_folder, make_plain_folder, remove_tree, syncfs


class Copies(StorageDriver):
    """Whole trees, made with `cp`."""

    name = "copies"
    options = make_class("Options", [])  # none; each field of the class would be one, `copies.FIELD`
    # MERGED: tree() holds the whole stack. False: a layer holds what its parents held, it is not independent of them.
    capabilities = Capabilities(Dialect.MERGED, False, CopyOnWrite.NONE, quota=False, max_depth=None)

    @classmethod
    def probe(cls, home, options):
        folder = next(folder for folder in (home, *home.parents) if folder.is_dir())
        if os.geteuid() != 0 or filesystem_type(folder) == "proc":
            raise DriverNotSupported(f"copies cannot keep files in {folder}", remedy="Run as root, and on a disk.")
        return Backing(filesystem_type(folder), CopyOnWrite.NONE, quota=False)

    def create(self, layer, parents, *, staged=False, size=None):
        if size is not None:
            raise DriverNotSupported("copies cannot limit the size of a container", remedy="Leave the size out.")
        made = self.staging / layer  # where nobody sees it, and a crash leaves it for the core to delete
        try:
            (made / "merged").mkdir(parents=True)
            make_plain_folder(made / "tree")
            if parents:
                subprocess.run(["cp", "-a", f"{self.tree(parents[0])}/.", made / "tree"], check=True)
            if not staged:
                syncfs(made)  # before it can be seen: a copy that is half on the disk would look like a container
                made.rename(self.home / layer)  # one step: it is whole, or not there
                fsync_folder(self.home)
        except BaseException:
            self.remove(layer)
            remove_tree(made)
            raise

    def tree(self, layer):
        return (self.staging if (self.staging / layer).exists() else self.home) / layer / "tree"

    def mounts(self, layer, parents, *, read_only):
        return [Mount("bind", str(self.tree(layer)), read_only=read_only)]

    def seal(self, layer, parents):
        if (self.staging / layer).exists():
            (self.staging / layer).rename(self.home / layer)
            fsync_folder(self.home)
        return layer

    def remove(self, layer):
        if (self.home / layer).exists():
            (self.home / layer).rename(self.staging / layer)

    def layers(self):
        return [LayerKey(name) for name in os.listdir(self.home)]
