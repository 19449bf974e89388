"""What both daemons, ``agent`` and ``guard``, are made with. It knows nothing of rules."""
