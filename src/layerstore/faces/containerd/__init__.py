"""The store as a snapshotter of containerd, and as what unpacks layers into its snapshots and makes layers of them.

Its services are `containerd.services.snapshots.v1.Snapshots` and `containerd.services.diff.v1.Diff`.

`snapshotter`, `differ` and `comparer` say what each call means to the store; they know no gRPC. `service` is between
their values and `api`, the messages as containerd has them; `server` listens on a socket; `content` asks containerd to
take in what `comparer` makes. `rows` remembers which key is which container, snapshot or layer of the store, in its
database; `filters` is containerd's language for lists, and `recipes` says which mounts can be left to containerd, and
which have to be made here.

An active snapshot is a container of the store, a committed one a snapshot of it (`Store.snapshots`); a view is neither.
An active snapshot that the differ was asked to unpack a layer into is that layer, from then on, and its container only
what the mounts show that somebody still has.
"""
