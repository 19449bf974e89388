"""The first diagnosis: what a node or a cluster has, what a restart of its agent would cost, and what to type next.

Problem: an operator who has just heard of this project wants an answer about their own cluster before anything is run
on it. Promise: everything here only reads; each check gives a ``DoctorFinding`` with its state and, where there is
something to do, the command; a check that fails is itself a finding and ends no other. ``node`` and ``cluster`` give a
``Diagnosis``. Next stage: ``hitless.cli.doctor``.
"""

from hitless.doctor.findings import Diagnosis, DoctorFinding

__all__ = ["Diagnosis", "DoctorFinding"]
