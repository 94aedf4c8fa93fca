"""Directories: reading one as git would add it, and writing one."""
