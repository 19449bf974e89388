"""A real Kubernetes on one machine, for contributors: API server, kubelets, containerd and a real flanneld.

Problem: the cluster tests need a real API server, kubelet and network agent, and contributors have no cluster to break.
Promise: everything runs in network namespaces of its own (``hitless-k8s``, ``hitless-k8s-node1`` …) and in one folder;
the machine's own rules, links and routes are not touched; ``down`` takes everything away again. Programs come from
Debian's packages and the Go module proxy; what is missing is said with what to install. Start here: ``__main__``.
"""
