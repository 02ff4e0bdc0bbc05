"""Kills, full disks, and several processes at once: an entry is whole, or is not there."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest

from patterncc.errors import UsageError
from patterncc.runtime.cache import Cache
from tests.runtime.packages import ROOT, package, rubbish

WRITER = """
import os, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
import filelock
from patterncc.codegen.package import GeneratedPackage
from patterncc.runtime.cache import Cache
n = int(sys.argv[2])
print("ready", flush=True)
while True:
    n += 1
    sources = {f"f{k}.bin": os.urandom(2000) for k in range(8)} | {"__init__.py": f"N = {n}".encode()}
    entry = Cache.of_user().store(GeneratedPackage("demo", str(n), {}, sources))
    Cache.of_user().remember(entry)
"""


PLACES = os.pathsep.join([ROOT, str(Path(filelock.__file__).parents[1])])  # of what a process without `site` imports


def writer(n: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-S", "-c", WRITER, PLACES, str(n)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def test_a_kill_at_any_moment_leaves_nothing_or_a_whole_entry(cache: Cache) -> None:
    chance = random.Random(7)
    for n in range(120):  # at least 12 kills; a busy machine needs more until some writers got far enough
        process = writer(n * 1000)
        time.sleep(chance.uniform(0, 0.03))
        process.kill()
        process.wait()
        if n >= 11 and len(cache.entries()) > 5 and cache.latest("demo"):  # the name is noted after the entry
            break
    entries = cache.entries()
    assert len(entries) > 5
    for entry in entries:
        entry.read()
    latest = cache.latest("demo")
    assert latest is not None
    cache.store(package())  # whoever writes next sweeps
    assert rubbish(cache) == []


def test_the_kill_test_would_see_a_half_written_entry(cache: Cache) -> None:
    """Negative control: without the temporary folder, files appear one by one, and reading such an entry fails."""
    made = package()
    folder = cache.packages / made.digest / "demo"
    folder.mkdir(parents=True)
    for count, (name, data) in enumerate(made.files.items()):
        entry = cache.entries()[0]
        assert count < len(made.files)
        with pytest.raises(ValueError):
            entry.read()
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(data)
    assert cache.entries()[0].read()


def test_two_writers_at_once(cache: Cache) -> None:
    processes = [writer(0), writer(0), writer(5)]  # numbered alike: they write to the same names
    deadline = time.monotonic() + 20
    while len(cache.entries()) < 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    alive = [process.poll() is None for process in processes]
    for process in processes:
        process.kill()
        process.wait()
    entries = cache.entries()
    assert all(alive) and len(entries) >= 20
    for entry in entries:
        entry.read()


def test_a_full_disk(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store(package())
    before = sorted(cache.root.rglob("*"))

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UsageError, match=r"cannot write to the cache .*: no space left on device") as raised:
        cache.store(package(size=7))
    assert "PATTERNCC_CACHE_DIR" in str(raised.value)
    assert sorted(cache.root.rglob("*")) == before


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_a_file_cut_by_a_limit(cache: Cache) -> None:
    script = (
        "import os, resource, sys\nsys.path[:0] = sys.argv[1].split(os.pathsep)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "from patterncc.codegen.package import GeneratedPackage\nfrom patterncc.runtime.cache import Cache\n"
        "Cache.of_user().store(GeneratedPackage('demo', '', {}, {'__init__.py': bytes(9000)}))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", script, PLACES], capture_output=True, text=True)
    assert "UsageError: cannot write to the cache" in done.stderr and "File too large" in done.stderr
    assert cache.entries() == [] and rubbish(cache) == []


RACER = """
import sys
sys.path.insert(0, sys.argv[1])
from patterncc.runtime.cache import Cache
from tests.runtime.packages import package
print("ready", flush=True)
while True:
    Cache.of_user().store(package(), anew=True)
    if sys.argv[2] == "clear":
        Cache.of_user().clear()
"""


@pytest.mark.parametrize("race", ["clear", "force"])
def test_readers_that_race_a_writer_see_no_damage(cache: Cache, race: str, recwarn: pytest.WarningsRecorder) -> None:
    digest = package().digest
    with subprocess.Popen([sys.executable, "-c", RACER, ROOT, race], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "ready\n"
            found, until = set[bool](), time.monotonic() + 20
            while time.monotonic() < until and (len(found) < 2 or time.monotonic() < until - 18.5):
                found.add(cache.find(digest) is not None)
                assert not [why for _, why in cache.checked() if why]
        finally:
            process.kill()
    assert found == {True, False} and not [warning.message for warning in recwarn.list]
