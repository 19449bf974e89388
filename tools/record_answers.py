"""Records what a real kube-apiserver answers, for tests/samples/kubernetes/answers.json.

Problem: answers that were written by hand are what somebody remembered. Promise: each is asked for on a real server
(``python -m tools.real_cluster up``), with names, addresses, uids and versions made neutral; what could not be had is
left as it was and named. It makes three namespaces, a Node without a kubelet and a priority level, and removes them:
run it on a cluster of your own, with nothing else going on. In the control plane's namespace, as administrator:

    nsenter --net=/run/netns/hitless-k8s -- .venv/bin/python tools/record_answers.py --kubeconfig …/pki/admin.kubeconfig
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2

from hitless.cluster.api import Api, connect
from hitless.cluster.kubeconfig import load

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "tests/samples/kubernetes/answers.json"
PLACE, STRICT, ENDING = "hitless-drill", "hitless-strict", "hitless-ending"
AWAY = "192.0.2.11"
"""The address that a node without a kubelet has in the samples."""

Document = dict[str, Any]
