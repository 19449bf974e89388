"""Leases in etcd v3, where flannel keeps them (``PREFIX/subnets/``).

``client`` calls etcd's JSON gateway, ``keys`` is the form of flannel's keys, ``watching`` follows the keys by list and
watch, ``registry`` takes and keeps this node's lease, ``source`` puts them together.
"""
