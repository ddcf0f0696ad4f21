"""Containers' output under shims, brought into their log files by one small process that outlives the daemon.

`keeper.py` is the daemon's end; everything else runs in the log process, which imports nothing but what these
files name: each module costs every node memory.
"""
