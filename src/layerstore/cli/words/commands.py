"""The commands of docker and podman that there are not here. A name stands for all that is below it, too."""

from __future__ import annotations

from typing import Final

_PODS: Final = "there are no pods; containers share a network by --network container:NAME, and --pid and --ipc likewise"
_DAEMON: Final = "there is no daemon, and nothing that goes on when a command has ended but containers"
_SWARM: Final = "there are no swarms: one store is one machine's; machines share layers by `serve` and remotes"
_SECRETS: Final = "there is no store of secrets; a build has --secret, and a container a file by -v or --mount"
_KUBE: Final = (
    "Kubernetes's documents are neither read nor written; `layerstore snapshotter` serves containerd, and so it"
)
_NETWORKS: Final = "there are no networks that have names: host, none, pasta, slirp4netns and container:NAME are all"
_MACHINE: Final = "there are no virtual machines: this is Linux's, and runs on it"
_CRIU: Final = (
    "processes are not written down (CRIU); `layerstore checkpoint` and `rollback` keep what is in the filesystem"
)
_LISTS: Final = "lists of manifests are not made; `layerstore copy --all` copies whole ones from a registry to another"
_SIGNATURES: Final = (
    "signatures are neither made nor verified; `layerstore copy --referrers` takes them along with an image"
)
_UPDATE: Final = "limits are those that a container was created with: create it anew, with others"
_MOUNTED: Final = (
    "images are mounted for containers alone: `layerstore create` and `mount`, or `ls`, `cat`, `find` without a mount"
)
_PLUGINS: Final = "what docker calls plugins is not known; storage drivers are Python packages (docs/drivers.md)"
_SYSTEMD: Final = "units are not made: write one whose ExecStart is `layerstore run --rm NAME`"

REFUSED: Final[dict[str, str]] = {
    # podman's
    "auto-update": f"{_DAEMON}: `layerstore run --pull newer` asks the registry when a container is made",
    "container checkpoint": _CRIU,
    "container restore": _CRIU,
    "container cleanup": "nothing is left of a container that has ended, or the next command cleans up by itself",
    "container clone": "`layerstore fork` makes containers that begin where one is now",
    "container init": "a container is prepared when it is started: `layerstore start`",
    "init": "a container is prepared when it is started: `layerstore start`",
    "container runlabel": "labels are not executed: `layerstore inspect` shows them",
    "container update": _UPDATE,
    "update": _UPDATE,
    "events": f"{_DAEMON}, so nobody tells of events; `layerstore wait` and `logs -f` wait for one container's",
    "generate": f"{_SYSTEMD}; {_KUBE}",
    "kube": _KUBE,
    "play": _KUBE,
    "image mount": _MOUNTED,
    "image unmount": _MOUNTED,
    "image scp": "images go to another machine by `serve` and `pull`, or by `save … | ssh HOST layerstore load`",
    "image sign": _SIGNATURES,
    "image trust": f"{_SIGNATURES}; whom registries.conf blocks, and what policy.json rejects, is not pulled",
    "machine": _MACHINE,
    "manifest add": _LISTS,
    "manifest annotate": _LISTS,
    "manifest create": _LISTS,
    "manifest push": _LISTS,
    "manifest remove": _LISTS,
    "manifest rm": _LISTS,
    "network": _NETWORKS,
    "pod": _PODS,
    "secret": _SECRETS,
    "system connection": f"{_DAEMON}, so none elsewhere is reached; `layerstore serve` gives images to other machines",
    "system migrate": "containers need no migration; `layerstore migrate` converts the store to another driver",
    "system renumber": "there are no numbered locks",
    "system reset": "a whole store is removed by hand: `rm -r` of its data-root, when nothing of it is mounted",
    "system service": f"{_DAEMON}, so docker's and podman's API is not served",
    "system events": f"{_DAEMON}, so nobody tells of events; `layerstore wait` and `logs -f` wait for one container's",
    "volume export": 'a volume is a folder: tar -C "$(layerstore volume mount NAME)" -c . writes it',
    "volume import": 'a volume is a folder: tar -C "$(layerstore volume mount NAME)" -x fills it',
    "volume reload": "there are no plugins of volumes",
    "volume unmount": "a volume is a folder, and not mounted until a container uses it",
    "volume update": _SWARM,
    # docker's
    "checkpoint create": _CRIU,
    "checkpoint ls": "`layerstore checkpoints CONTAINER` lists a container's",
    "checkpoint rm": "`layerstore checkpoints --rm CONTAINER LABEL` removes one",
    "config": _SWARM,
    "context": f"{_DAEMON}, so there is none to choose; --root and --config choose a store",
    "node": _SWARM,
    "plugin": _PLUGINS,
    "service": _SWARM,
    "stack": _SWARM,
    "swarm": _SWARM,
    "trust": _SIGNATURES,
    "buildx": "`layerstore build` and `builder` are what buildx is",
    "compose": "files of compose are not read",
}
