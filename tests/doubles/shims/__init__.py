"""Shims (containerd's shim v2) of the tests: programs that start, speak ttrpc, and run real processes.

One program with many ways (`ways.py`): what each known shim prints, reads, serves, refuses, needs. Containers
are made by an OCI runtime of the machine, also where a virtual machine would be; then no number of a process
of theirs is told. `install.py` writes the program, with plans for what is to fail.
"""
