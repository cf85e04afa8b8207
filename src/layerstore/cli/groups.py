"""docker's groups of commands, `image`, `container` and `system`: other ways to say the same."""

from __future__ import annotations

from typing import Final

from layerstore.cli.front import Entry, Group

_IMAGE: Final[tuple[Entry, ...]] = (
    ("build", "build:build_command", "Build an image from a Dockerfile"),
    ("diff", "containers:diff_command", "Show what an image changed in the filesystem of the one below it"),
    ("exists", "images:exists_command", "Whether there is such an image: the exit code says it"),
    ("history", "images:history_command", "Show the history of an image"),
    ("import", "archives:import_command", "Create an image from the tar of a filesystem"),
    ("inspect", "objects:inspect_command", "Show all that is known of images"),
    ("load", "archives:load_command", "Load images from an archive, a folder or standard input"),
    ("list", "images:images_command", "List images, as ls does"),
    ("ls", "images:images_command", "List images"),
    ("prune", "pruning:image_prune_command", "Remove unused images"),
    ("pull", "pull:pull_command", "Get an image from a registry"),
    ("push", "push:push_command", "Give an image to a registry"),
    ("rm", "images:rmi_command", "Remove one or more images"),
    ("save", "archives:save_command", "Save one or more images to an archive or folder"),
    ("search", "repositories:search_command", "Search Docker Hub or another registry for images"),
    ("tag", "images:tag_command", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    ("tree", "images:tree_command", "Show the layers of an image, and which images end with each"),
    ("untag", "images:untag_command", "Take names from an image"),
)
_CONTAINER: Final[tuple[Entry, ...]] = (
    ("attach", "watching:attach_command", "Be the terminal, or the standard streams, of a container"),
    ("commit", "containers:commit_command", "Create an image from a container's changes"),
    ("cp", "copying:cp_command", "Copy files and folders between a container and this machine"),
    ("create", "run:create_command", "Create a container"),
    ("diff", "containers:diff_command", "Show what a container changed in its filesystem"),
    ("exec", "exec:exec_command", "Run one more program in a container that runs"),
    ("exists", "containers:exists_command", "Whether there is such a container: the exit code says it"),
    ("export", "archives:export_command", "Write a container's filesystem as a tar"),
    ("inspect", "objects:inspect_command", "Show all that is known of containers"),
    ("kill", "lives:kill_command", "Send containers a signal"),
    ("list", "ps:ps_command", "List containers, as ls does"),
    ("logs", "watching:logs_command", "Show what a container wrote"),
    ("ls", "ps:ps_command", "List containers"),
    ("mount", "containers:mount_command", "Mount containers, or list what is mounted"),
    ("pause", "lives:pause_command", "Freeze all processes of containers"),
    ("port", "watching:port_command", "Show where the ports of a container are published"),
    ("prune", "pruning:container_prune_command", "Remove all containers that neither run nor are mounted"),
    ("ps", "ps:ps_command", "List containers, as ls does"),
    ("rename", "containers:rename_command", "Rename a container"),
    ("restart", "lives:restart_command", "Stop containers, and start them again"),
    ("rm", "lives:rm_command", "Remove one or more containers"),
    ("run", "run:run_command", "Create a container and run a program in it"),
    ("start", "lives:start_command", "Start one or more containers"),
    ("stats", "watching:stats_command", "Show what containers take of the machine"),
    ("stop", "lives:stop_command", "Ask containers to stop, and kill those that do not"),
    ("top", "watching:top_command", "Show the processes of a container"),
    ("umount", "containers:umount_command", "Unmount containers"),
    ("unmount", "containers:umount_command", "Unmount containers, as umount does"),
    ("unpause", "lives:unpause_command", "Let all processes of containers go on"),
    ("wait", "lives:wait_command", "Wait until containers have ended, and print their exit codes"),
)
_SYSTEM: Final[tuple[Entry, ...]] = (
    ("df", "disk:df_command", "Show what takes the room in the store"),
    ("info", "storage:info_command", "Show facts about the store and its driver"),
    ("prune", "pruning:prune_command", "Remove unmounted containers and unused images"),
)

image_command = Group(_IMAGE, name="image", help="Commands on images")
container_command = Group(_CONTAINER, name="container", help="Commands on containers")
system_command = Group(_SYSTEM, name="system", help="Commands on the store as a whole")
