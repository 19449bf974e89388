"""The port to a Kubernetes API server: which server, as which user, and what is read and written.

Problem: if each tool and daemon had its own kubeconfig reader and its own client, each would lack other fields.
Promise: one reader of kubeconfigs (``kubeconfig``, ``contexts``), one place for proxies, TLS and credentials, and two
clients that decode the same responses: ``api`` for tools (httpx2: retries, websockets, waiting for states) and
``client`` for daemons (the standard library). Imports nothing of agents, drills or rules.
"""
