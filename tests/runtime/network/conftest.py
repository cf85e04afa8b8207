"""Networks are tested where the life of containers is: on a store with an image whose programs run."""

from __future__ import annotations

from runtime.life.conftest import cgroup_parent as cgroup_parent
from runtime.life.conftest import image_file as image_file
from runtime.life.conftest import loaded as loaded
from runtime.life.conftest import make as make
from runtime.life.conftest import runtime as runtime
