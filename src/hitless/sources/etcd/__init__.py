"""Leases in etcd v3, where flannel keeps them (``PREFIX/subnets/``).

``client`` asks etcd's JSON gateway, ``keys`` is the form of flannel's keys, ``watching`` says what the answers to lists
and watches change, ``registry`` takes and keeps this node's lease, ``source`` puts them together.
"""
