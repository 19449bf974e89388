"""Rule changes as a stream: who changed what carries the pods' egress, and when it was not carried.

The stage between the kernel's events (``hitless.kernel``), the evaluator (``hitless.semantics``) and the records
(``hitless.model.events``). ``Watch`` is the stream; ``Tracker`` makes gaps of answers; ``profiles`` define what to
watch.
"""

from hitless.watch.options import WatchOptions
from hitless.watch.profiles import DEFAULT, Profile, load, parse, shipped
from hitless.watch.tracking import Tracker
from hitless.watch.watching import Watch

__all__ = ["DEFAULT", "Profile", "Tracker", "Watch", "WatchOptions", "load", "parse", "shipped"]
