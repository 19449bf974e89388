"""A fake Kubernetes API server that speaks HTTP, for tests of anything that talks to one.

Problem: no real API server can be installed in a test, and a mocked client proves nothing about the wire. Promise: list
with pages, watch with bookmarks and 410, create, every kind of patch (``api_patches``), delete with grace and
preconditions, eviction, logs and exec over websockets (v4 and v5.channel.k8s.io), RBAC that denies what is not allowed,
the real server's messages; it can fail in several ways (``api_faults``). A test uses it with kubectl
(``api_discovery``). Lists and watches are in ``api_lists``, logs and exec in ``api_streams``, objects in ``api_store``,
pods in ``api_kubelet``. It never checks schemas (``kubernetes-validate`` does that in the tests), except for fields
that are newer than ``minor``, its own version.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from hitless.testing import api_admission, api_discovery, api_lists, api_patches, api_streams
from hitless.testing.api_discovery import CLUSTER_WIDE, KINDS
from hitless.testing.api_faults import Faults
from hitless.testing.api_rights import ApiRequest, Rights
from hitless.testing.api_store import Document, ObjectStore, StatusError
from hitless.testing.api_streams import PROTOCOLS, Command, Kubelet
from hitless.testing.endings import finish_turns, stop_listening

__all__ = ["Command", "FakeApi", "Kubelet"]


class FakeApi:
    """The server. ``rights`` may be replaced at any time; ``kubelet`` must be set for exec, logs and pod deletes."""

    def __init__(self, *, bookmark_every: float = 1.0, protocols: tuple[str, ...] = PROTOCOLS) -> None:
        self.store = ObjectStore(reap=self._reap)
        self.rights = Rights()
        self.kubelet: Kubelet | None = None
        self.bookmark_every = bookmark_every
        self.protocols = protocols
        self.minor = 34
        self.url = ""
        self.faults = Faults()
        self.store.create("namespaces", "", {"metadata": {"name": "default"}})
        self.store.create("namespaces", "", {"metadata": {"name": "kube-system"}})

    @asynccontextmanager
    async def serve(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeApi]:
        """Serve on a free port of the loopback address; ``tls`` where a client will have nothing else (in a pod)."""
        app = web.Application(middlewares=[self._middleware], client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # handler_cancellation: a client that went away ends its watch
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0, access_log=None)
        await runner.setup()
        assert runner.server is not None
        server = await asyncio.get_running_loop().create_server(runner.server, "127.0.0.1", 0, ssl=tls)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            await stop_listening(server)
            transports = [one.transport for one in runner.server.connections if one.transport is not None]
            await runner.cleanup()
            for transport in transports:  # TLS would still send its close_notify after the loop has ended
                transport.abort()
            await finish_turns()

    def kubeconfig(self) -> str:
        """A kubeconfig (JSON is YAML) for this server."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "fake",
                "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
                "users": [{"name": "fake", "user": {"token": "fake"}}],
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            }
        )

    @web.middleware
    async def _middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.faults.begin(request)
        try:
            await self.faults.meet(request)
            response = await handler(request)
            self.faults.answered(request)
            return response
        except StatusError as refusal:
            return web.json_response(refusal.document(), status=refusal.status)
        except ConnectionError:  # the connection was cut while we wrote: no client is left
            return web.Response(status=499)
        finally:
            self.faults.end(request)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        if (found := api_discovery.answer(request.path, self.minor)) is not None:
            return web.json_response(found)
        if request.content_type == "application/vnd.kubernetes.protobuf":
            raise StatusError(415, "UnsupportedMediaType", "the fake takes JSON: application/json")
        if parts[-1] == api_discovery.REVIEW and request.method == "POST":
            return web.json_response(api_discovery.review(self.rights, await request.json()), status=201)
        if parts[:1] == ["api"]:
            group, rest = "", parts[2:]
        elif parts[:1] == ["apis"] and len(parts) > 3:
            group, rest = parts[1], parts[3:]
        else:
            raise StatusError(404, "NotFound", "the server could not find the requested resource")
        namespace = ""
        if rest[:1] == ["namespaces"] and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural, name, sub = [*rest, "", ""][:3]
        resource = f"{plural}.{group}" if group else plural
        if resource not in KINDS or (not namespace and resource not in CLUSTER_WIDE and request.method != "GET"):
            raise StatusError(404, "NotFound", "the server could not find the requested resource")
        watching = request.query.get("watch") in ("true", "1")
        verb = self._verb(request, name, watching)
        place = name if resource == "namespaces" else namespace  # for RBAC a namespace is in itself
        self.rights.check(ApiRequest(verb, group, f"{plural}/{sub}" if sub else plural, place, name))
        if sub:
            return await self._subresource(request, namespace, name, sub)
        if watching:
            return await api_lists.watch(self.store, self.faults, request, resource, namespace, self.bookmark_every)
        return await self._object(request, resource, namespace, name)

    @staticmethod
    def _verb(request: web.Request, name: str, watching: bool) -> str:
        if request.method == "GET":
            return "get" if name else "watch" if watching else "list"
        return {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}[request.method]

    async def _object(self, request: web.Request, resource: str, namespace: str, name: str) -> web.StreamResponse:
        match request.method:
            case "GET" if name:
                return web.json_response(api_lists.whole(resource, self.store.get(resource, namespace, name)))
            case "GET":
                return web.json_response(api_lists.page(self.store, request, resource, namespace))
            case "POST":
                document, strict = await request.json(), request.query.get("fieldValidation") == "Strict"
                api_admission.decode(document, self.minor, strict=strict)
                made = self._create(resource, namespace, document, dry=request.query.get("dryRun") == "All")
                return web.json_response(api_lists.whole(resource, made), status=201)
            case "PATCH":
                return web.json_response(
                    api_lists.whole(resource, self._patch(request, await request.read(), resource, namespace, name))
                )
            case "DELETE":
                return web.json_response(await self._delete(request, resource, namespace, name))
            case _:
                message = "the server does not allow this method on the requested resource"
                raise StatusError(405, "MethodNotAllowed", message)

    def _create(self, resource: str, namespace: str, document: Document, *, dry: bool = False) -> Document:
        api_admission.admit(self.store, resource, namespace, document)
        return document if dry else self.store.create(resource, namespace, document)

    def _patch(self, request: web.Request, body: bytes, resource: str, namespace: str, name: str) -> Document:
        kind = request.content_type
        patch = api_patches.read(kind, body)
        if kind == api_patches.APPLY:
            if not request.query.get("fieldManager"):
                message = (
                    'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
                )
                raise StatusError(422, "Invalid", message)
            if (resource, namespace, name) not in self.store.objects:
                return self._create(resource, namespace, patch)
        return self.store.change(resource, namespace, name, lambda one: api_patches.patched(one, kind, patch))

    async def _delete(self, request: web.Request, resource: str, namespace: str, name: str) -> Document:
        document = self.store.get(resource, namespace, name)
        options = await request.json() if request.can_read_body else {}
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted and wanted != document["metadata"]["uid"]:
            had = document["metadata"]["uid"]
            message = f"the UID in the precondition ({wanted}) does not match the UID in record ({had})"
            message += ". The object might have been deleted and then recreated"
            kind = KINDS[resource]
            details = {"name": name, "kind": kind}
            raise StatusError(409, "Conflict", f'Operation cannot be fulfilled on {kind} "{name}": {message}', details)
        version = (options.get("preconditions") or {}).get("resourceVersion")
        if version and version != (had := document["metadata"]["resourceVersion"]):
            message = (
                f"the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record"
            )
            message += f" ({had}). The object might have been modified"
            details = {"name": name, "kind": KINDS[resource]}
            text = f'Operation cannot be fulfilled on {KINDS[resource]} "{name}": {message}'
            raise StatusError(409, "Conflict", text, details)
        if resource == "pods" and self.kubelet is not None:
            self.kubelet.terminate(document, options.get("gracePeriodSeconds"))
            return api_lists.whole(resource, document)
        gone = self.store.remove(resource, namespace, name)
        if resource == "namespaces":
            return api_lists.whole(resource, gone)
        details = {"name": name, "kind": resource.split(".")[0], "uid": gone["metadata"]["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _reap(self, resource: str, document: Document) -> bool:
        """Pods that lost their owner or their namespace end as any pod does."""
        if resource != "pods" or self.kubelet is None:
            return False
        self.kubelet.terminate(document, None)
        return True

    async def _subresource(self, request: web.Request, namespace: str, name: str, sub: str) -> web.StreamResponse:
        if sub == "token":
            issued = api_admission.token(await request.json())
            self.faults.account(issued["status"]["token"])
            return web.json_response(issued, status=201)
        if sub == "status" and request.method == "PATCH" and not namespace:
            return web.json_response(self._patch(request, await request.read(), "nodes", "", name))
        pod = self.store.get("pods", namespace, name)
        if self.kubelet is None:
            raise StatusError(500, "InternalError", "no kubelet runs this pod")
        container = request.query.get("container", "")
        match sub:
            case "log":
                return await api_streams.log(self.store, self.kubelet, request, pod, container)
            case "eviction":
                api_admission.check_budget(self.store, pod)
                options = (await request.json()).get("deleteOptions") or {}
                self.kubelet.terminate(pod, options.get("gracePeriodSeconds"))
                return web.json_response({"kind": "Status", "status": "Success"}, status=201)
            case "exec":
                # A server from 1.35 on requires create as well, although the websocket comes by GET.
                self.rights.check(ApiRequest("create", "", "pods/exec", namespace, name))
                if (phase := (pod.get("status") or {}).get("phase")) in ("Succeeded", "Failed"):
                    message = f"cannot exec into a container in a completed pod; current phase is {phase}"
                    raise StatusError(400, "BadRequest", message)
                command = self.kubelet.command(pod, container)
                return await api_streams.execute(self.faults, request, command, self.protocols)
            case _:
                raise StatusError(404, "NotFound", f"the server could not find the requested resource {sub}")
