"""The world of the suite for real clusters, in a namespace of its own: what stands behind a cluster of one node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.cluster import stage, world
from tests.kernel.nftables.nodes import programs

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

STORY = """
set -e
ip link set lo up
# an earlier world's: the kernel takes it away a while after its last process
ip link add {link} type veth peer name other
( sleep 1.5; ip link del {link} ) &
"$1" -sP -c "$2" & world=$!
for _ in $(seq 100); do
  if "$1" -sP -c "$3" 2>/dev/null; then reached=yes; break; fi
  kill -0 $world || break
  sleep 0.3
done
kill -TERM $world || true
wait $world || true
test "$reached" = yes
"""


def test_it_answers_and_waits_for_what_an_earlier_one_left() -> None:
    programs("unshare", "ip")
    script = Path(world.__file__).read_text()
    words = ["unshare", "-n", "sh", "-c", STORY.format(link=world.LINK), "sh", sys.executable, script, stage.REACHED]
    done = subprocess.run(words, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "File exists" not in done.stderr
