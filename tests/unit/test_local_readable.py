"""Where PostgreSQL lives when root starts it."""

import os
from pathlib import Path

import pytest

from models.errors import Stop
from streams.local import readable
from streams.local.readable import binaries, cluster_directory, server_user, shared_directory

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place that stands for /var/lib, which everybody may enter."""
    place = tmp_path_factory.mktemp("shared")
    monkeypatch.setattr(readable, "SHARED", (place,))
    monkeypatch.setattr(readable, "_all_can_enter", lambda directory: directory.stat().st_mode & 1 == 1)
    place.chmod(0o755)
    return place


def closed(tmp_path: Path) -> Path:
    """A directory that only its owner may enter."""
    home = tmp_path / "closed"
    home.mkdir(mode=0o700)
    return home


@as_root
@pytest.mark.usefixtures("shared")
def test_a_cluster_stays_in_a_directory_that_others_may_enter(tmp_path: Path):
    """Nothing is put elsewhere without need."""
    home = tmp_path / "open"
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    assert cluster_directory(home) == home / "cluster"


@as_root
def test_a_cluster_of_a_closed_directory_lives_elsewhere_and_is_found_again(tmp_path: Path, shared: Path):
    """The directory remembers where."""
    home = closed(tmp_path)
    first = cluster_directory(home)
    assert first.is_relative_to(shared / "early-kill" / "clusters")
    assert cluster_directory(home) == first


@as_root
def test_others_may_enter_where_clusters_are_whatever_the_umask(tmp_path: Path, shared: Path):
    """PostgreSQL runs as another user than the one whose umask it is."""
    home = closed(tmp_path)
    before = os.umask(0o077)
    try:
        cluster = cluster_directory(home)
    finally:
        os.umask(before)
    assert all(parent.stat().st_mode & 0o001 for parent in cluster.parents if parent.is_relative_to(shared))


@as_root
@pytest.mark.usefixtures("shared")
def test_two_closed_directories_do_not_share_a_cluster(tmp_path: Path):
    """Each has its own token."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert cluster_directory(closed(tmp_path / "a")) != cluster_directory(closed(tmp_path / "b"))


@as_root
@pytest.mark.usefixtures("shared")
def test_a_remembered_cluster_that_is_gone_is_an_error(tmp_path: Path):
    """An empty one in its place would hide that records are lost."""
    home = closed(tmp_path)
    cluster_directory(home).rmdir()
    with pytest.raises(Stop, match="is gone"):
        cluster_directory(home)


@as_root
def test_a_shared_directory_that_others_may_write_is_not_used(shared: Path):
    """Somebody could have put programs there."""
    (shared / "early-kill").mkdir()
    (shared / "early-kill").chmod(0o777)
    with pytest.raises(Stop, match="none of"):
        shared_directory()


@as_root
def test_a_shared_directory_of_another_user_is_not_used(shared: Path):
    """For the same reason."""
    (shared / "early-kill").mkdir()
    os.chown(shared / "early-kill", 65534, -1)
    with pytest.raises(Stop, match="none of"):
        shared_directory()


@as_root
def test_a_shared_directory_behind_a_link_is_not_used(shared: Path, tmp_path: Path):
    """A link may lead anywhere."""
    (shared / "early-kill").symlink_to(tmp_path)
    with pytest.raises(Stop, match="none of"):
        shared_directory()


@as_root
def test_the_owner_of_a_cluster_goes_on_running_it(tmp_path: Path):
    """A data directory that an ordinary user made works for root too."""
    os.chown(tmp_path, 12345, 54321)
    user = server_user(tmp_path)
    assert user is not None
    assert (user.uid, user.gid) == (12345, 54321)


@as_root
def test_root_runs_a_new_cluster_as_somebody_else(tmp_path: Path):
    """PostgreSQL refuses root."""
    user = server_user(tmp_path / "new")
    assert user is not None
    assert user.uid != 0


@as_root
def test_programs_that_others_cannot_read_are_copied_once(shared: Path, monkeypatch: pytest.MonkeyPatch):
    """The copy is complete, and the second start uses it."""
    monkeypatch.setattr(readable, "_all_can_read", lambda _: False)
    programs = binaries(server_user(shared / "new"))
    assert programs.is_relative_to(shared)
    assert (programs / "postgres").stat().st_mode & 0o555 == 0o555
    before = (programs / "postgres").stat().st_ino
    assert (binaries(server_user(shared / "new")) / "postgres").stat().st_ino == before
    assert [path.name for path in (shared / "early-kill").iterdir()] == [programs.relative_to(shared / "early-kill").parts[0]], "no scratch directory is left"
