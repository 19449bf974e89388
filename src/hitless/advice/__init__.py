"""What a release does at a restart of its network agent, and what can be done about it.

Problem: a straight answer to "does my release have this?" needs the releases' own histories, and what a node or a
cluster really runs. Promise: ``judgement`` is pure, from tables (``releases``) and rules that name their sources;
``nodes`` and ``clusters`` only read. It knows neither drills nor probes. Next stages:
``hitless.doctor``, ``hitless.cli``.
"""
