"""Files and folders that other users of the machine could change; floor 1."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from pathlib import Path


def distrust(path: Path, *, regular: bool = False, sticky: bool = False) -> str | None:
    """Return why a file or folder is not to be trusted and what to do, None when it is: others own it, or may write it.

    With `regular` it has to be a regular file. With `sticky` a folder of which a single file counts may have that bit, for
    then nobody can replace a file of ours.
    """
    try:
        info = path.stat()
    except OSError as error:
        return f"can't be read: {error.strerror}"
    if regular and not stat.S_ISREG(info.st_mode):
        return "is not a regular file"
    if info.st_uid not in {0, os.geteuid()}:
        return (
            f"belongs to {_user(info.st_uid)}, who could change it: run `chown {_user(os.geteuid())} {_quoted(path)}`"
        )
    return others_may_write(path, info, sticky=sticky)


def others_may_write(path: Path, info: os.stat_result, *, sticky: bool = False) -> str | None:
    """Return why others may write a file or folder and what to do, None when they may not; `sticky` as for `distrust`."""
    if sticky and info.st_mode & stat.S_ISVTX:
        return None
    if info.st_mode & stat.S_IWOTH:
        return f"can be written by everybody: run `chmod o-w {_quoted(path)}`"
    if info.st_mode & stat.S_IWGRP and not _alone_in_group(info.st_gid, info.st_uid):
        return f"can be written by others of group {_group(info.st_gid)}: run `chmod g-w {_quoted(path)}`"
    return None


def _alone_in_group(gid: int, owner: int) -> bool:
    """Return whether no account other than the owner, root and ours is in the group."""
    trusted = {_user(uid) for uid in (0, owner, os.geteuid())}
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        members = set()
    members.update(entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == gid)
    return members <= trusted


def _quoted(path: Path) -> str:
    """The path as a word of a command line."""
    return shlex.quote(str(path))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
