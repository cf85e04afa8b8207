"""The options of docker and podman that commands do not take here, each with its reason.

`COMMANDS: OPTIONS` in a line, both lists of words; what is the same for several commands is said once. A command is
called by its `canonical` name, `.` is the program itself.
"""

from __future__ import annotations

from typing import Final

_RUN: Final = "run create"

_TABLE: Final[tuple[tuple[str, str], ...]] = (
    # --- the program itself
    (
        "there is no daemon that a command would speak to: it opens the store itself",
        ".: -c --connection --context -H --host --identity -r --remote --ssh --url --tls --tlscacert --tlscert "
        "--tlskey --tlsverify",
    ),
    (
        "there is no journal: errors are told in words, and LAYERSTORE_TRACEBACK=1 shows where a defect is",
        ".: -D --debug -l --log-level --syslog --events-backend --noout",
    ),
    ("it is `exec-root` of daemon.json", ".: --runroot"),
    ("it is `default-runtime` or `runtimes` of daemon.json, or --runtime of `run`", ".: --runtime --runtime-flag"),
    ("volumes are in the data-root: --root", ".: --volumepath"),
    ("what is being made is in `staging` of the data-root: --root", ".: --tmpdir"),
    ("the program of PATH is taken", ".: --conmon --network-cmd-path"),
    ("cgroups are made directly, and by no manager", ".: --cgroup-manager"),
    ("there are no networks that have names", ".: --network-config-dir"),
    (
        "there are no hooks: a runtime of daemon.json's `runtimes` may be a program that does more",
        ".: --hooks-dir",
    ),
    ("every store is a namespace of its own: --root", ".: --namespace"),
    # --- containers
    (
        "there are no pods; containers share a network by --network container:NAME, and --pid and --ipc likewise",
        f"{_RUN}: --pod --pod-id-file; create: --init-ctr; ps: -p --pod",
    ),
    (
        "set --cpus: a share of the processors' time, from which quota and period follow",
        f"{_RUN}: --cpu-period --cpu-quota --cpu-count --cpu-percent",
    ),
    ("real-time scheduling is not given to containers", f"{_RUN}: --cpu-rt-period --cpu-rt-runtime"),
    (
        "reads and writes of devices are not limited",
        f"{_RUN}: --blkio-weight --blkio-weight-device --device-read-bps "
        "--device-read-iops --device-write-bps --device-write-iops --io-maxbandwidth --io-maxiops",
    ),
    ("rules for devices follow from --device and --privileged", f"{_RUN}: --device-cgroup-rule"),
    (
        "only --memory, --memory-reservation and --memory-swap are given to the kernel",
        f"{_RUN}: --memory-swappiness --oom-kill-disable --kernel-memory",
    ),
    (
        "each container has a cgroup of its own, below --cgroup-parent",
        f"{_RUN}: --cgroupns --cgroups --cgroup-conf",
    ),
    (
        "there are no networks that have names and addresses: --network host, none, pasta, slirp4netns, container:NAME",
        f"{_RUN}: --ip --ip6 --mac-address --network-alias --link --link-local-ip",
    ),
    ("publish the port with -p; -P publishes those that the image exposes", f"{_RUN}: --expose"),
    (
        "user namespaces: `create --userns INSIDE:OUTSIDE:COUNT` mounts for other IDs",
        f"{_RUN}: --gidmap --uidmap --subgidname --subuidname --hostuser",
    ),
    ("secrets are given by a file: -v FILE:/run/secrets/NAME:ro", f"{_RUN}: --secret"),
    ("a root is always an image's: `layerstore import` makes one of a tar", f"{_RUN}: --rootfs --chrootdirs"),
    ("an image's volumes are made anonymous volumes, as docker does", f"{_RUN}: --image-volume"),
    ("logs have no options; --log-driver none keeps none", f"{_RUN}: --log-opt"),
    ("name the variable with -e, and its value", f"{_RUN}: --http-proxy --env-merge --tz --unsetenv-all"),
    ("/etc/passwd is the image's: -v FILE:/etc/passwd:ro puts another there", f"{_RUN}: --passwd-entry; run: --passwd"),
    ("/etc/hosts is made for each container: --add-host adds to it", f"{_RUN}: --no-hosts"),
    ("nothing waits for a word of the program: --health-cmd asks whether it is ready", f"{_RUN}: --sdnotify"),
    ("no container is set up for systemd: --tmpfs /run and --stop-signal do it", f"{_RUN}: --systemd"),
    (
        "what is to happen is up to who looks at its health: `layerstore ps --filter health=unhealthy`",
        f"{_RUN}: --health-on-failure",
    ),
    ("name them with --tmpfs: /run, /tmp and /var/tmp are what podman mounts", f"{_RUN}: --read-only-tmpfs"),
    ("a profile is named by --security-opt seccomp=FILE", f"{_RUN}: --seccomp-policy"),
    ("the init is found in PATH, or not: --init", f"{_RUN}: --init-path"),
    ("files that are open are not handed on; -v mounts a file", "run exec: --preserve-fds"),
    ("the number of its first process is State.Pid of `inspect`", f"{_RUN}: --pidfile --conmon-pidfile"),
    ("containers do not wait for each other: start them in their order", f"{_RUN}: --requires"),
    ("no container is ended by a clock: `timeout 60 layerstore run …` ends it", f"{_RUN}: --timeout"),
    ("set it in the program's own shell: sh -c 'umask 027; exec …'", f"{_RUN}: --umask"),
    ("personalities of the kernel are not set", f"{_RUN}: --personality"),
    ("graphics cards are given as devices: --device /dev/dri", f"{_RUN}: --gpus"),
    ("there is no daemon whose API a container could use", f"{_RUN}: --use-api-socket"),
    (
        "volumes are `local`, which is the machine's own folders, or whatever mount(8) mounts",
        f"{_RUN}: --volume-driver",
    ),
    (
        "processes are not written down (CRIU): `layerstore fork --checkpoint` begins at a filesystem's checkpoint",
        "start: --checkpoint --checkpoint-dir",
    ),
    ("containers have no links: what else a container has is removed with it", "rm: --link --depend"),
    ("-l is --link to docker and --latest to podman: say which by its long name", "rm: -l"),
    (
        "lines are told apart by nothing but their stream: `layerstore logs` is of one container",
        "logs: --color --names --details",
    ),
    ("name the containers, or list them with `layerstore ps --format '{{.Names}} {{.Ports}}'`", "port: -a --all"),
    (
        "containers of other programs are not looked for; `--filter owner=containerd` shows what it has here",
        "ps: --external",
    ),
    ("what namespaces a container has is in HostConfig of `inspect`", "ps: --ns"),
    ("watch(1) does it: watch -n 2 layerstore ps", "ps: -w --watch"),
    ("a file never takes the place of a folder, nor a folder that of a file: remove it first", "cp: --overwrite"),
    ("an image's volumes are those that VOLUME says: --change 'VOLUME /data'", "commit: --include-volumes"),
    ("`layerstore squash IMAGE` makes one layer of several", "commit: -s --squash"),
    # --- images
    (
        "an image of the store is for one platform; `layerstore images` and `inspect` tell it",
        "history: --platform; inspect: --platform; rmi: --platform; push: --platform",
    ),
    ("`layerstore image tree IMAGE` shows layers", "images: --tree"),
    ("names that an image had are not remembered", "images: --history"),
    ("images that nothing needs go with the image that was built on them, or by `layerstore prune`", "rmi: --no-prune"),
    ("what other programs keep is never removed here", "image prune: --external"),
    ("layers are compressed as --compression says", "push: --compress; save: --compress --uncompressed"),
    ("manifests are OCI's, or those with which an image came", "push: -f --format"),
    (
        "signatures are neither made nor taken along; `layerstore copy --referrers` does the latter",
        "push: --remove-signatures --sign-by --sign-by-sigstore-private-key --sign-passphrase-file",
    ),
    # --- builds
    (
        "an image is built for one platform at a time: --platform",
        "build: --all-platforms --manifest --os-feature --os-version",
    ),
    (
        "log in first (`layerstore login`): a build asks several registries, and the words would go to all of them",
        "build: --creds --cert-dir",
    ),
    ("what was built is remembered until `builder prune` removes it: --filter until=24h", "build: --cache-ttl"),
    (
        "RUN has the capabilities that BuildKit gives it: RUN --security=insecure has all of them",
        "build: --cap-add --cap-drop --device",
    ),
    (
        "RUN has namespaces as BuildKit gives them: RUN --network, --network",
        "build: --cgroupns --ipc --pid --uts --userns --userns-gid-map --userns-gid-map-group --userns-uid-map "
        "--userns-uid-map-user --dns --dns-option --dns-search --no-hosts",
    ),
    ("nothing is preprocessed: run cpp yourself", "build: --cpp-flag"),
    ("encrypted layers cannot be read", "build: --decryption-key"),
    (
        "layers are kept as they are, and compressed when they leave: save --compression, push --compression",
        "build: -D --disable-compression",
    ),
    ("variables are the Dockerfile's: ENV, or --build-arg", "build: --env --http-proxy --unsetenv"),
    ("name the base in an ARG before FROM, and set that with --build-arg", "build: --from"),
    ("there are no hooks", "build: --hooks-dir"),
    ("images do not say what built them", "build: --identity-label"),
    ("write it beside the Dockerfile, as FILE.containerignore", "build: --ignorefile"),
    ("redirect standard error", "build: --logfile --logsplit"),
    ("histories are kept: `advise` and `why` read them", "build: --omit-history"),
    ("max-download-attempts of daemon.json says how often a registry is asked", "build: --retry --retry-delay"),
    ("arguments of a runtime are in daemon.json's `runtimes`", "build: --runtime-flag"),
    ("signatures are not made", "build: --sign-by"),
    ("stages that nothing needs are never built", "build: --skip-unused-stages"),
    ("--squash makes one layer of what the build adds; `layerstore squash` of all", "build: --squash-all"),
    ("RUN has no standard input: give it a file by --mount=type=bind", "build: --stdin"),
    ("SOURCE_DATE_EPOCH of --build-arg sets all times", "build: --timestamp"),
    ("RUN --mount=type=bind, from a --build-context, mounts a folder", "build: -v --volume"),
    # --- others
    (
        "there are no swarms",
        "volume create: --availability --group --limit-bytes --required-bytes --scope --secret "
        "--sharing --topology-preferred --topology-required --type; volume ls: --cluster",
    ),
    (
        "a volume that a container uses is not removed: remove the container, with `rm -f -t SECONDS`",
        "volume rm: -t --time",
    ),
    (
        "networks of containers need no namespace of their own here: pasta and slirp4netns are enough",
        "unshare: --rootless-netns",
    ),
)


def _options() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for reason, text in _TABLE:
        for line in text.split("; "):
            commands, _, names = line.partition(": ")
            for command in [commands] if commands.startswith(("volume", "image")) else commands.split():
                found.setdefault(command, {}).update(dict.fromkeys(names.split(), reason))
    return found


OPTIONS: Final = _options()
"""By command and option, why it is not taken."""
