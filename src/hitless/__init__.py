"""hitless: restart a Kubernetes node's network agent without a pod losing a connection, and prove it."""

__version__ = "0.1.0.dev0"
