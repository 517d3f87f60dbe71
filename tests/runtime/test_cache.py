"""The object cache: right or absent, whatever the disk does."""

import errno
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import graphc
import graphc.runtime.cache as cache_module
from graphc.runtime.cache import ObjectCache, cache_key, default_cache
from graphc.runtime.executable import source_files

KEY = cache_key("define void @f()", "x86-64", "1")
DATA = bytes(range(256)) * 4


@pytest.fixture
def store(tmp_path: Path) -> ObjectCache:
    return ObjectCache(tmp_path / "objects")


def entry(store: ObjectCache) -> Path:
    assert store.directory is not None
    (path,) = store.directory.glob("*.o")
    return path


def test_what_was_put_is_found_by_another_cache_on_the_directory(store: ObjectCache) -> None:
    assert store.get(KEY) is None
    store.put(KEY, DATA)
    assert ObjectCache(store.directory).get(KEY) == DATA


def test_the_key_depends_on_each_part_and_on_their_borders() -> None:
    keys = [
        cache_key("a", "b", "c"),
        cache_key("x", "b", "c"),
        cache_key("a", "x", "c"),
        cache_key("a", "b", "x"),
        cache_key("ab", "", "c"),
        cache_key("", "ab", "c"),
    ]
    assert len(set(keys)) == len(keys)


def test_fetch_builds_once(store: ObjectCache) -> None:
    built: list[int] = []

    def build() -> bytes:
        built.append(1)
        return DATA

    assert store.fetch("p", "t", "v", build) == DATA
    assert store.fetch("p", "t", "v", build) == DATA
    assert len(built) == 1


def test_the_directory_is_private(store: ObjectCache) -> None:
    store.put(KEY, DATA)
    assert store.directory is not None
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry(store).stat().st_mode) == 0o600


@pytest.mark.parametrize("keep", [0, 7, 40, 48, 100, -1])
def test_a_truncated_entry_is_dropped_and_rebuilt(store: ObjectCache, keep: int) -> None:
    store.put(KEY, DATA)
    path = entry(store)
    path.write_bytes(path.read_bytes()[:keep])
    assert store.get(KEY) is None
    assert not path.exists()
    assert store.stats().damaged == 1
    store.put(KEY, DATA)
    assert store.get(KEY) == DATA


@pytest.mark.parametrize("at", [0, 8, 20, 40, 48, 500, -1])
def test_a_flipped_bit_is_noticed(store: ObjectCache, at: int) -> None:
    store.put(KEY, DATA)
    path = entry(store)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert store.get(KEY) is None


def test_an_appended_byte_is_noticed(store: ObjectCache) -> None:
    store.put(KEY, DATA)
    path = entry(store)
    path.write_bytes(path.read_bytes() + b"x")
    assert store.get(KEY) is None


def test_an_entry_under_anothers_name_is_refused(store: ObjectCache) -> None:
    other = cache_key("other", "x86-64", "1")
    store.put(KEY, DATA)
    path = entry(store)
    path.rename(path.with_name(path.name.replace(KEY, other)))
    assert store.get(other) is None


def test_an_entry_of_another_user_is_never_loaded(
    store: ObjectCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(KEY, DATA)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert store.get(KEY) is None
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert store.get(KEY) == DATA


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_an_entry_that_others_can_write_is_never_loaded(store: ObjectCache, mode: int) -> None:
    store.put(KEY, DATA)
    entry(store).chmod(mode)
    assert store.get(KEY) is None


def test_links_and_folders_are_not_entries(store: ObjectCache, tmp_path: Path) -> None:
    store.put(KEY, DATA)
    path = entry(store)
    aside = tmp_path / "aside"
    path.rename(aside)
    path.symlink_to(aside)
    assert store.get(KEY) is None
    path.unlink()
    path.mkdir()
    assert store.get(KEY) is None
    store.put(KEY, DATA)


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = ObjectCache(tmp_path, limit=10_000)
    keys = [cache_key(str(i), "", "") for i in range(9)]
    for age, key in enumerate(keys):
        store.put(key, DATA)
        os.utime(tmp_path / f"{key}.o", (1000 + age, 1000 + age))
    assert store.get(keys[0]) == DATA
    store.put(cache_key("one more", "", ""), DATA)
    stats = store.stats()
    assert stats.bytes <= 8_000
    assert stats.evicted == 3
    assert [store.get(key) is not None for key in keys] == [True] + [False] * 3 + [True] * 5


def test_an_object_above_the_limit_is_not_stored(tmp_path: Path) -> None:
    store = ObjectCache(tmp_path, limit=1000)
    store.put(KEY, DATA)
    assert store.stats().entries == 0


def test_eviction_sweeps_what_dead_writers_left(tmp_path: Path) -> None:
    old, new = tmp_path / ".1-old.tmp", tmp_path / ".2-new.tmp"
    for path in (old, new):
        path.write_bytes(b"partial")
    os.utime(old, (1000, 1000))
    store = ObjectCache(tmp_path, limit=2000)
    for name in "abc":
        store.put(cache_key(name, "", ""), DATA)
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("failing", ["open", "replace", "mkdir"])
@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_disk_that_refuses_costs_only_the_entry(
    store: ObjectCache, monkeypatch: pytest.MonkeyPatch, failing: str, code: int
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, refuse)
        assert store.fetch("p", "t", "v", lambda: DATA) == DATA
    assert store.directory is not None
    assert list(store.directory.glob("*")) + list(store.directory.glob(".*")) == []


def test_a_directory_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = ObjectCache(tmp_path / "file" / "objects")
    store.put(KEY, DATA)
    assert store.get(KEY) is None
    assert store.stats().entries == 0
    store.clear()


def test_a_read_only_directory_still_serves(store: ObjectCache) -> None:
    store.put(KEY, DATA)
    assert store.directory is not None
    store.directory.chmod(0o500)
    try:
        assert store.get(KEY) == DATA
        store.put(cache_key("new", "", ""), DATA)
    finally:
        store.directory.chmod(0o700)


def test_clear_and_stats(store: ObjectCache) -> None:
    store.put(KEY, DATA)
    store.get(KEY)
    store.get(cache_key("absent", "", ""))
    stats = store.stats()
    assert (stats.hits, stats.misses, stats.stores, stats.entries) == (1, 1, 1, 1)
    store.clear()
    assert store.stats().entries == 0
    assert store.get(KEY) is None


@pytest.mark.parametrize("word", ["0", "off", "OFF"])
def test_switched_off(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", word)
    store = default_cache()
    store.put(KEY, DATA)
    assert store.get(KEY) is None
    assert store.directory is None


def test_where_the_default_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "chosen"))
    monkeypatch.setenv("GRAPHC_CACHE_SIZE", "12345")
    assert default_cache().directory == tmp_path / "chosen"
    assert default_cache().limit == 12345
    assert default_cache() is default_cache()
    monkeypatch.delenv("GRAPHC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache().directory == tmp_path / "graphc"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache().directory == tmp_path / ".cache" / "graphc"
    monkeypatch.setenv("GRAPHC_CACHE_SIZE", "much")
    with pytest.raises(ValueError, match="GRAPHC_CACHE_SIZE='much'"):
        default_cache()


WRITER = """
import sys
from pathlib import Path
from graphc.runtime.cache import ObjectCache, cache_key
store = ObjectCache(Path(sys.argv[1]), limit=20_000)
found = 0
for turn in range(200):
    number = turn * int(sys.argv[2]) % 40
    key = cache_key(str(number), "", "")
    data = store.get(key)
    if data is not None:
        assert data == bytes([number]) * 1000
        found += 1
    store.put(key, bytes([number]) * 1000)
assert store.stats().damaged == 0
print(found)
"""


def test_processes_share_a_directory_and_its_bound(tmp_path: Path) -> None:
    root = Path(graphc.__file__).parent.parent
    environment = dict(os.environ, PYTHONPATH=str(root))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(step)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for step in (1, 3, 7)
    ]
    outputs = [writer.communicate(timeout=60)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert sum(map(int, outputs)) > 0
    last = ObjectCache(tmp_path, limit=20_000)
    last.put(KEY, DATA)
    assert last.stats().bytes <= 20_000
    assert not list(tmp_path.glob(".*.tmp"))


COUNTED = """
import sys
from pathlib import Path
from graphc.runtime.cache import ObjectCache, cache_key
store = ObjectCache(Path(sys.argv[1]))
for turn in range(300):
    store.put(cache_key(str(turn), sys.argv[2], ""), bytes(100))
"""


def test_what_processes_write_at_once_is_all_counted(tmp_path: Path) -> None:
    root = Path(graphc.__file__).parent.parent
    environment = dict(os.environ, PYTHONPATH=str(root))
    command = [sys.executable, "-c", COUNTED, str(tmp_path)]
    writers = [subprocess.Popen([*command, name], env=environment) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    entries = [p.stat().st_size for p in tmp_path.glob("*.o")]
    assert len(entries) == 900
    assert int((tmp_path / "size").read_bytes().split()[0]) == sum(entries)


def test_another_process_that_stands_still_is_not_waited_for(store: ObjectCache) -> None:
    fcntl = pytest.importorskip("fcntl")
    store.put(KEY, DATA)
    with open(store.directory / "size") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        start = time.monotonic()
        store.put(KEY[::-1], DATA)
        assert time.monotonic() - start < 30
    assert store.get(KEY[::-1]) == DATA
    assert store.stats().entries == 2


def test_a_size_that_cannot_be_noted_bounds_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "size").mkdir()
    small = ObjectCache(tmp_path, limit=20_000)
    for number in range(40):
        small.put(cache_key(str(number), "", ""), bytes(1000))
    assert small.stats().bytes <= 20_000
    assert small.stats().entries > 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_does_not_keep_the_lock(store: ObjectCache) -> None:
    store.put(KEY, DATA)
    with cache_module._alone(store.directory):
        held = os.fork()
        if held == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with open(store.directory / "size", "rb") as file:
            assert cache_module._locked(file.fileno())
    finally:
        os.kill(held, 9)
        os.waitpid(held, 0)


def test_a_hit_counts_as_use(store: ObjectCache) -> None:
    store.put(KEY, DATA)
    os.utime(entry(store), (1000, 1000))
    before = time.time() - 10
    store.get(KEY)
    assert entry(store).stat().st_mtime > before


def test_the_size_is_not_counted_again_for_every_process(store, monkeypatch):
    directory = store.directory
    store.put("a" * 64, b"x" * 100)
    scans = []
    scan = cache_module._scan
    monkeypatch.setattr(cache_module, "_scan", lambda *a: scans.append(a) or scan(*a))
    for k in range(3):
        ObjectCache(directory).put(f"{k}" * 64, b"x" * 100)
    assert not scans
    note = directory / "size"
    for text in (b"", b"garbage", b"1 2 3", b"\xff\xff"):
        note.write_bytes(text)
        ObjectCache(directory).put("b" * 64, b"x" * 100)
        assert scans
        del scans[:]
    size, scanned = note.read_bytes().split()
    assert int(size) == sum(p.stat().st_size for p in directory.glob("*.o"))
    note.write_bytes(b"%s %d" % (size, int(scanned) - 100_000))
    ObjectCache(directory).put("c" * 64, b"x" * 100)
    assert scans


def test_the_version_of_the_compiler_covers_the_templates() -> None:
    """In a checkout they are behind a link: what they built before must not be found again."""
    package = Path(graphc.__file__).parent
    found = {p.relative_to(package).as_posix() for p in source_files()}
    assert {"kernels/panel.py", "codegen/llvm.py", "runtime/native/pool.ll"} <= found
