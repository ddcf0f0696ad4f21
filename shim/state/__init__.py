"""The daemon's memory: records in memory, one SQLite file behind them, a mirror beside each object."""
