"""The keys of daemon.json that are docker's, and none of our business."""

from __future__ import annotations

from typing import Final

__all__ = ["DOCKERS"]

_WORDS: Final = """
allow-direct-routing allow-nondistributable-artifacts api-cors-header authorization-plugins bip bip6 bridge
bridge-accept-fwmark cdi-spec-dirs cgroup-parent cluster-advertise cluster-store cluster-store-opts containerd
containerd-namespace containerd-plugin-namespace cpu-rt-period cpu-rt-runtime cri-containerd debug
default-address-pools default-cgroupns-mode default-gateway default-gateway-v6 default-init default-ipc-mode
default-network-opts default-shm-size default-ulimits deprecated-key-path disable-legacy-registry dns
dns-opts dns-search exec-opts experimental features firewall-backend fixed-cidr fixed-cidr-v6 group host-gateway-ip
host-gateway-ips hosts http-proxy https-proxy icc init init-path ip ip-forward ip-forward-no-drop
ip-masq ip6tables iptables ipv6 labels live-restore log-driver log-format log-level log-opts
metrics-addr mtu network-control-plane-mtu network-diagnostic-port
no-new-privileges no-proxy node-generic-resources oom-score-adjust pidfile raw-logs
resolv-conf rootless seccomp-profile selinux-enabled shutdown-timeout swarm-default-advertise-addr
swarm-raft-election-tick swarm-raft-heartbeat-tick tls tlscacert tlscert tlskey tlsverify userland-proxy
userland-proxy-path userns-remap
"""

DOCKERS: Final = frozenset(_WORDS.split())
"""What dockerd reads or has read from its daemon.json, and a store does not."""
