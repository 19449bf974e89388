"""Record what the kernel keeps of the sample rules of the unit tests: run it as root after a sample was added.

python tools/record_rules.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.kernel.nftables.live_samples import written
from tests.kernel.nftables.nodes import node
from tests.unit.nftables.rule_samples import IPTABLES, NFT, RECORDED, identity


def main() -> None:
    rules = {}
    for sample in [*NFT, *IPTABLES]:
        with node() as here:
            found = written(here, sample)
            rules[identity(sample)] = {
                "rule": found.rule.hex(),
                "sets": [[head.hex(), [each.hex() for each in elements]] for head, elements in found.sets],
            }
    RECORDED.write_text(json.dumps({"rules": rules}, indent=1) + "\n")
    print(f"{len(rules)} rules in {RECORDED}")


if __name__ == "__main__":
    main()
