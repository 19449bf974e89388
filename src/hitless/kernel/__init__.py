"""Ports to this machine. The only place that runs a program, opens a netlink socket or enters a namespace."""
