"""The fake API server leaves no open socket, whenever its loop ends."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from urllib.parse import urlsplit

import pytest

from hitless.testing.api_server import FakeApi


@pytest.mark.slow
@pytest.mark.parametrize("turns", range(8))
def test_a_connection_that_comes_as_the_server_ends_is_closed(turns: int) -> None:
    async def serve() -> socket.socket:
        async with FakeApi().serve() as api:
            address = urlsplit(api.url)
            late = socket.create_connection((address.hostname, address.port))
            for _ in range(turns):
                await asyncio.sleep(0)
            return late

    gc.collect()
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always", ResourceWarning)
        loop = asyncio.new_event_loop()  # not asyncio.run, which turns the loop a few times more at its end
        late = loop.run_until_complete(serve())
        loop.close()
        late.close()
        del late, loop
        gc.collect()
    assert not [str(one.message) for one in left]
