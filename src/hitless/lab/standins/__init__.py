"""Stand-ins: small programs that change real rules with the command sequences of real agents.

Problem: what an agent's restart costs depends on its commands, their order and their number, and a real flanneld needs
an API server, an overlay and an image. Promise: each stand-in runs the same programs with the same arguments in the
same order as the agent that it replaces (facts from flannel's and go-iptables' sources; no code of theirs), does real
work in the kernel, counts its commands, and behaves as the agent does at SIGTERM. No gap is simulated: packets are lost
in the kernel. Run as ``python -m hitless.lab.standins NAME --backend nft --network … --subnet …``.
"""
