"""A firewall's reload by single commands beside the agent: do they succeed, and what do pods notice?

The script does what distributions' and administrators' scripts do: for each program and table flush, delete the chains,
then rules of its own. Every command is counted that ends with an error; gaps are those that ``hitless watch`` saw.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from bench.parts.agent_lab import Agent, Traffic, farend, watch

from hitless.kernel import processes
from hitless.lab import building
from hitless.lab.plans import LabPlan
from hitless.model.families import Backend, Family

_SCRIPT = """
for p in iptables-{0} ip6tables-{0}; do
  run() {{ $p -w "$@" || echo "failed: $p $*"; }}
  for t in filter nat mangle; do run -t $t -F; run -t $t -X; done
  run -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
  run -N LOCAL; run -A INPUT -j LOCAL; run -P FORWARD ACCEPT
done
"""


def reloads(backend: Backend, count: int, rate: int, require: Callable[[bool, str], None]) -> None:
    """Many reloads under traffic, with realistic pauses."""
    failed, spans = 0, []
    script = _SCRIPT.format(backend if backend is not Backend.NFTABLES else Backend.NFT)
    with building.up(LabPlan(family="dual", backend=backend)) as lab:
        agent = Agent(lab)
        far = farend(lab, tuple(Family))
        watching = watch(lab, tuple(Family))
        traffic = Traffic(lab, rate, tuple(Family))
        for number in range(count):
            begun = time.monotonic()
            done = processes.run(["sh", "-c", script], namespace=lab.nodes[0].namespace, check=False)
            spans.append(time.monotonic() - begun)
            failed += done.stdout.count("failed: ")
            time.sleep(0.3 + number % 5 * 0.5)  # some come while the bridge of the previous one is in place
        time.sleep(2.0)
        sent, lost = traffic.end()
        watching.end()
        far.end()
        agent.end(signal.SIGTERM)
    gaps = sorted((one["end"] - one["begin"]) / 1e6 for one in watching.events if one["type"] == "gap")
    longest = f", longest {gaps[-1]:.1f} ms" if gaps else ""
    print(f"  {backend.value}: {count} reloads of {1e3 * sum(spans) / count:.0f} ms; {len(gaps)} gaps{longest}")
    require(failed == 0, f"{backend.value}: {failed} commands of {count} reloads failed (asked: 0)")
    require(lost == 0, f"{backend.value}: {lost} lost of {sent:,} (asked: 0)")
