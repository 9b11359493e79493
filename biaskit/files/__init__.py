"""Everything that is written to disk goes through here: files are complete or absent, even if a process is killed or a disk is full.

A file is written beside its target under a temporary name, forced to disk (fsync) and renamed over the target. A symbolic link is followed:
its target is replaced, the link stays. Targets that are not regular files (folders, devices, pipes, sockets) are refused. Temporary files
of killed processes are removed when a file is next written beside them.
"""

from biaskit.files.interrupt import uninterrupted
from biaskit.files.leftovers import discard, is_left, machine, scratch, sweep
from biaskit.files.names import file_part
from biaskit.files.system import of_system, unwritable
from biaskit.files.target import check_target, check_writable, existing
from biaskit.files.write import replacing, staged, write_file

VERSION = "0.1.0"
"""The version of biaskit, recorded in its files and sent in requests."""

__all__ = [
    "VERSION",
    "check_target",
    "check_writable",
    "discard",
    "existing",
    "file_part",
    "is_left",
    "machine",
    "of_system",
    "replacing",
    "scratch",
    "staged",
    "sweep",
    "uninterrupted",
    "unwritable",
    "write_file",
]
