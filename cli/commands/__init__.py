"""The commands, one verb family a file. Each file registers its own on the application."""
