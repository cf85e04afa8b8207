"""The messages of containerd's Snapshots, Diff and Content services.

Made by tools/containerd-api of the .proto files beside this, which are containerd's own (© The containerd Authors,
Apache-2.0, github.com/containerd/containerd, api/): snapshots.proto, diff.proto and content.proto of services/,
mount.proto and descriptor.proto of types/.
"""
