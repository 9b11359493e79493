"""The one writer of files: whole or not there under kills, full disks, odd targets; what a killed process leaves is removed."""

from __future__ import annotations

import ast
import errno
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import biaskit
from biaskit.demo.training.arrays import memory_map
from biaskit.errors import BiaskitError, FileError, PriorError
from biaskit.files import check_target, check_writable, leftovers, replacing, staged, sweep, write_file

PACKAGE = Path(biaskit.__file__).parent


def killed(code: str, *arguments: str) -> None:
    """Run code in a process that kills itself with SIGKILL on the way."""
    script = "import os, signal, sys\nfrom pathlib import Path\nfrom biaskit import files\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize("moment", ["replace", "fsync", "write"])
def test_a_kill_leaves_the_old_file_and_the_next_write_the_new_one_alone(tmp_path, moment):
    path = tmp_path / "result.json"
    path.write_text("old")
    how = {
        "replace": f"Path.replace = lambda *a: {KILL}\nfiles.write_file(Path(sys.argv[1]), 'new' * 1000)",
        "fsync": f"os.fsync = lambda *a: {KILL}\nfiles.write_file(Path(sys.argv[1]), 'new' * 1000)",
        "write": f"with files.replacing(Path(sys.argv[1])) as file:\n    file.write(b'new')\n    file.flush()\n    {KILL}",
    }[moment]
    killed(how, str(path))
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2, "the killed process leaves its temporary"
    leftovers._looked.clear()
    write_file(path, "newer")
    assert path.read_text() == "newer"
    assert [found.name for found in tmp_path.iterdir()] == ["result.json"]


def test_a_folder_that_was_being_staged_is_removed_too(tmp_path):
    killed(
        f"with files.staged(Path(sys.argv[1])) as stage:\n    (stage / 'config.json').write_text('x')\n    {KILL}", str(tmp_path / "model")
    )
    leftovers._looked.clear()
    with staged(tmp_path / "model") as stage:
        (stage / "config.json").write_text("{}")
        (stage / "deep").mkdir()
        (stage / "deep" / "more.json").write_text("[]")
    assert [found.name for found in tmp_path.iterdir()] == ["model"]
    assert sorted(str(found.relative_to(tmp_path)) for found in tmp_path.rglob("*.json")) == ["model/config.json", "model/deep/more.json"]


def test_a_failed_stage_leaves_the_folder_as_it_was(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("old")
    with pytest.raises(ZeroDivisionError), staged(tmp_path / "model") as stage:
        (stage / "config.json").write_text("new")
        1 / 0  # noqa: B018
    assert (tmp_path / "model" / "config.json").read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["model"]


def test_a_stage_is_on_the_folder_s_own_disk(tmp_path, monkeypatch):
    """A folder that is a link to another disk, whose parent nobody may write to besides."""
    disk = tmp_path / "disk"
    (disk / "real").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "model").symlink_to(disk / "real")
    move = Path.replace

    def of_one_disk(path, target):
        if (disk in path.resolve().parents) != (disk in Path(target).resolve().parents):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return move(path, target)

    monkeypatch.setattr(Path, "replace", of_one_disk)
    (tmp_path / "home").chmod(0o500)
    try:
        with staged(tmp_path / "home" / "model") as stage:
            (stage / "config.json").write_text("{}")
    finally:
        (tmp_path / "home").chmod(0o700)
    assert [found.name for found in (disk / "real").iterdir()] == ["config.json"]
    assert [found.name for found in (tmp_path / "home").iterdir()] == ["model"]


def test_what_others_still_write_stays(tmp_path):
    """A temporary of a process that runs, of another machine, and names that only look alike."""
    mine = leftovers.machine()
    other = "0" * 8 if mine != "0" * 8 else "1" * 8
    parent = os.getppid()
    names = [f".a.{parent}.{mine}00000000.tmp", f".a.1.{other}00000000.tmp", ".a.tmp", "a.99999.0000000000000000.tmp"]
    for name in names:
        (tmp_path / name).touch()
    old = tmp_path / f".b.1.{other}00000000.tmp"
    old.touch()
    os.utime(old, (0, 0))
    with replacing(tmp_path / "c") as file:
        file.write(b"c")
        sweep(tmp_path)
    assert sorted(found.name for found in tmp_path.iterdir()) == sorted([*names, "c"])


def test_a_full_disk_is_an_error_and_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="cannot be written: No space left on device") as caught:
        write_file(path, b"new")
    assert "disk with free space" in caught.value.hint
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["result.json"]


def odd(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "odd"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            here = Path.cwd()
            os.chdir(tmp_path)  # socket names are short
            try:
                made.bind("odd")
            finally:
                os.chdir(here)
    else:
        path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
@pytest.mark.parametrize("linked", [False, True])
def test_targets_that_are_no_regular_files_are_refused(tmp_path, kind, linked):
    path = odd(tmp_path, kind)
    if linked:
        path = tmp_path / "link"
        path.symlink_to("odd")
    before = path.lstat()
    for call in (lambda: write_file(path, b"x"), lambda: check_writable(path), lambda: check_target(path)):
        with pytest.raises(FileError, match=f"{path} is a {kind}"):
            call()
    assert path.lstat().st_ino == before.st_ino


def test_a_link_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    target.write_text("old")
    link.symlink_to("there/file")
    with pytest.raises(FileError, match="exists"):
        write_file(link, "new", force=False)
    write_file(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    dangling = tmp_path / "dangling"
    dangling.symlink_to("there/fresh")
    write_file(dangling, "fresh", force=False)
    assert dangling.is_symlink()
    assert (tmp_path / "there" / "fresh").read_text() == "fresh"


@pytest.mark.parametrize("name", ["circle", "file/below", "nul\0", "x" * 300])
def test_paths_that_cannot_be_are_errors(tmp_path, name):
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot be written"):
        write_file(tmp_path / name, "x")


def test_long_names_leave_room_for_the_temporary(tmp_path):
    path = tmp_path / ("ä" * 127)  # 254 bytes of 255
    write_file(path, "x")
    assert path.read_text() == "x"


def test_a_memory_map_has_its_blocks(tmp_path):
    array = memory_map(tmp_path / "a.npy", np.float32, (1000, 100), fresh=True)
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= array.nbytes
    array[3] = 7
    array.flush()
    again = memory_map(tmp_path / "a.npy", np.float32, (1000, 100), fresh=False)
    assert again.sum() == 700
    assert np.load(tmp_path / "a.npy", mmap_mode="r").sum() == 700


@pytest.mark.parametrize("fresh", [True, False])
def test_a_memory_map_on_a_full_disk_is_an_error(tmp_path, monkeypatch, fresh):
    path = tmp_path / "a.npy"
    if not fresh:
        np.save(path, np.ones(5))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(FileError, match="No space left"):
        memory_map(path, np.float64, (5,), fresh=fresh)
    assert path.exists() is not fresh


def test_a_memory_map_without_fallocate(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    array = memory_map(tmp_path / "a.npy", np.float64, (300_000,), fresh=True)
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= array.nbytes
    assert array.shape == (300_000,)
    assert not array.any()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_file_system_that_really_fills_up(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        write_file(disk / "a", b"old")
        with pytest.raises(FileError, match="No space left"):
            write_file(disk / "a", bytes(1 << 20))
        with pytest.raises(FileError, match="No space left"):
            memory_map(disk / "map.npy", np.uint8, (1 << 20,), fresh=True)
        assert [(path.name, path.read_bytes()) for path in disk.iterdir()] == [("a", b"old")]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_errors_are_of_files_and_not_of_priors(tmp_path):
    assert issubclass(FileError, BiaskitError)
    assert not issubclass(FileError, PriorError)
    (tmp_path / "there").touch()
    with pytest.raises(FileError, match="exists"):
        write_file(tmp_path / "there", b"", force=False)


# Every place outside biaskit/files that may change files: (module, call), and why.
ALLOWED = {
    ("validation/results/directory.py", "open"): "answers are appended to results.jsonl and timing.jsonl, line by line",
    ("validation/results/directory.py", "truncate"): "a last line that a kill cut is cut off",
    ("validation/results/directory.py", "unlink"): "--force starts over",
    ("calibration/state.py", "unlink"): "states of a calibration that is done, or that another one has taken in",
    ("bench/plan.py", "TemporaryDirectory"): "each benchmark of a plan writes into a folder of its own, which goes with it",
    ("bench/report.py", "open"): "rows are appended as they are measured",
    ("bench/report.py", "unlink"): "such rows, once the whole result is written or a new one begins",
    ("cli/console.py", "open"): "the null device, where standard output is closed",
    ("images/coco_files.py", "save"): "a download, into `replacing`",
    ("images/coco_files.py", "unlink"): "the zip that annotations were taken from",
    ("demo/training/arrays.py", "open_memmap"): "an array whose blocks are claimed first",
    ("demo/training/arrays.py", "open"): "the same",
    ("demo/training/arrays.py", "write"): "the same, where the system cannot claim blocks",
    ("demo/training/arrays.py", "unlink"): "the same, where the disk is full",
    ("images/regular.py", "open"): "for reading, without waiting for a pipe",
    ("images/coco.py", "unlink"): "a bad entry of the cache",
    ("images/coco_stores.py", "unlink"): "a bad entry of the cache",
    ("images/kept_records.py", "unlink"): "a kept list that is damaged, or of an earlier version of its annotation file",
    ("images/download.py", "truncate"): "a download that begins again, inside `replacing`",
}
WRITING = {
    "write_text",
    "write_bytes",
    "savefig",
    "save_file",
    "tofile",
    "savez",
    "savez_compressed",
    "savetxt",
    "to_csv",
    "save_pretrained",
    "touch",
    "unlink",
    "rename",
    "symlink_to",
    "hardlink_to",
    "rmdir",
    "rmtree",
    "truncate",
    "copyfile",
    "copy2",
    "copytree",
    "move",
    "mkstemp",
    "mkdtemp",
    "NamedTemporaryFile",
    "TemporaryFile",
    "TemporaryDirectory",
    "memmap",
    "open_memmap",
}


def writes(tree: ast.AST) -> set[str]:
    """Calls of a module that change files on disk. What goes into a BytesIO, or into the stage of `staged`, does not."""
    harmless = {"stage"}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.value.func).endswith(("BytesIO", "StringIO"))
        ):
            harmless |= {ast.unparse(target) for target in node.targets}
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = [*node.args, *(word.value for word in node.keywords)]
        if any(ast.unparse(value) in harmless for value in given):
            continue
        words = [value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)]
        keywords = {word.arg for word in node.keywords}
        method = isinstance(node.func, ast.Attribute)
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        if (
            name in WRITING
            or (name in ("open", "fdopen") and any(set(word) & set("wax+") and set(word) <= set("rwaxbt+") for word in words))
            or (name == "save" and "force" not in keywords and len(given) >= (1 if method else 2))  # Prior.save has `force`
            or (name == "dump" and owner in ("json", "pickle", "np", "numpy"))
            or (name == "replace" and method and owner != "dataclasses" and _one_target(node))  # str.replace takes two
            or (owner == "os" and name in ("open", "write", "rename", "remove", "replace", "ftruncate", "link", "symlink"))
        ):
            found.add(name)
    return found


def _one_target(call: ast.Call) -> bool:
    """Whether a call has exactly one argument, as `Path.replace` has; `f(*several)` may have any number."""
    return len(call.args) == 1 and not call.keywords and not isinstance(call.args[0], ast.Starred)


def test_nothing_else_writes_files():
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        if PACKAGE / "files" not in path.parents:
            where = path.relative_to(PACKAGE).as_posix()
            found |= {(where, name) for name in writes(ast.parse(path.read_text(encoding="utf-8")))}
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    "code",
    [
        "open(p, 'w')",
        "p.open('ab')",
        "p.write_text('')",
        "json.dump(x, f)",
        "torch.save(x, path)",
        "np.save(path, x)",
        "figure.savefig(path)",
        "part.replace(path)",
        "os.replace(a, b)",
        "image.save(path, 'PNG')",
        "model.save_pretrained(folder)",
        "shutil.copyfile(a, b)",
    ],
)
def test_the_scan_sees_what_writes(code):
    assert writes(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "buffer = io.BytesIO()\ntorch.save(x, buffer)",
        "t.replace('a', 'b')",
        "replace(x, a=1)",
        "sample.replace(*contents[number])",
        "sample.replace(places, contents)",
        "open(p, 'rb')",
        "p.open()",
    ],
)
def test_the_scan_passes_what_does_not_write(code):
    assert not writes(ast.parse(code))
