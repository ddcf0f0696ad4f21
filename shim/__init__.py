"""Everything that acts on the machine: pods, containers, images, network, runtimes, state, recovery."""
