"""Become another program, on a leash: ``python -I -S tether.py PARENT_PID SIGNAL UID GID -- PROGRAM ARGUMENT…``.

On Linux the kernel sends SIGNAL to the program when the thread that started it dies, so nothing outlives a supervisor
that was killed with SIGKILL. Elsewhere the leash is missing; the pid files are for that. UID and GID of -1 keep the user.
Standard library only, and nothing of this project: it runs before the user is changed.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Change user, tie the leash, and replace this process by the program."""
    parent, signal_number, uid, gid = map(int, sys.argv[1:5])
    command = sys.argv[6:]
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if uid != -1:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if libc is not None:  # after the change of user, which undoes it
        libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:  # it died in between
        os._exit(1)
    try:
        os.execv(command[0], command)  # noqa: S606 -- no shell is wanted
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
        os._exit(127)


if __name__ == "__main__":
    main()
