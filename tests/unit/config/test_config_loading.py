"""Files to settings: merging, origins, and every mistake at its place."""

from __future__ import annotations

import os
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.loading import MAX_FILE_SIZE, ConfigError, LoadedSettings, Origin, check, load
from config.models import HandlerSettings, LogSettings, Settings
from config.problems import known_keys, table_of
from config.table import Table
from config.units import Bytes, Seconds


class Files:
    """A configuration directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.main = directory / "config.toml"

    def write(self, name: str, content: str | bytes) -> Path:
        file = self.directory / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def load(self) -> LoadedSettings:
        return load(self.main)

    def problems(self) -> list[str]:
        """What is refused, without the directory's name."""
        with pytest.raises(ConfigError) as refused:
            load(self.main)
        return str(refused.value).replace(f"{self.directory}/", "").splitlines()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_without_files_everything_is_default(files: Files) -> None:
    assert files.load() == LoadedSettings(
        settings=Settings(), origins={}, files=(), looked_for=(files.main, files.directory / "conf.d")
    )


def test_drop_ins_are_merged_in_name_order_over_the_main_file(files: Files) -> None:
    files.write("config.toml", 'log = { level = "debug", format = "json" }\n[images]\nretries = 1\n')
    files.write("conf.d/20-b.toml", '[log]\nlevel = "error"\n[images]\npinned = ["b"]\n')
    files.write(
        "conf.d/10-a.toml", '[log]\nlevel = "warning"\n\n[images]\npinned = ["a", "c"]\nretries = 2\n'
    )
    files.write("conf.d/.30-hidden.toml", "this is not TOML")
    files.write("conf.d/40-readme.txt", "neither is this")
    loaded = files.load()
    b, a = files.directory / "conf.d/20-b.toml", files.directory / "conf.d/10-a.toml"
    assert loaded.settings == Settings(
        log=LogSettings(level="error", format="json"),
        images=Settings().images.model_copy(update={"retries": 2, "pinned": ("b",)}),
    )
    assert loaded.files == (files.main, a, b)
    assert loaded.origins == {
        ("log",): Origin(file=files.main, line=1),
        ("log", "format"): Origin(file=files.main, line=1),
        ("log", "level"): Origin(file=b, line=2),
        ("images",): Origin(file=files.main, line=2),
        ("images", "pinned"): Origin(file=b, line=4),
        ("images", "retries"): Origin(file=a, line=6),
    }
    assert loaded.describe_origin("log", "level") == f"{b}:2"
    assert loaded.describe_origin("images", "layer_form") == "default"


@given(order=st.permutations(["10", "20", "30", "9", "a", "B"]))
@settings(max_examples=20)
def test_the_order_of_names_decides_not_the_order_of_writing(
    tmp_path_factory: pytest.TempPathFactory, order: list[str]
) -> None:
    files = Files(tmp_path_factory.mktemp("order"))
    for name in order:
        files.write(f"conf.d/{name}.toml", f'cgroup.prefix = "from_{name}"')
    assert files.load().settings.cgroup.prefix == "from_a"


def test_a_handler_may_be_spread_over_files(files: Files) -> None:
    files.write("config.toml", '[handlers.kata]\nbinary = "/usr/bin/kata-runtime"\n')
    files.write("conf.d/10.toml", 'handlers.kata.annotations = ["io.katacontainers.*"]\n[handlers.crun]\n')
    loaded = files.load()
    assert loaded.settings.handlers == {
        "kata": HandlerSettings(binary=Path("/usr/bin/kata-runtime"), annotations=("io.katacontainers.*",)),
        "crun": HandlerSettings(),
    }
    assert loaded.describe_origin("handlers", "kata") == f"{files.main}:1"
    assert loaded.describe_origin("handlers", "crun") == f"{files.directory}/conf.d/10.toml:2"


def test_what_follows_from_another_setting_follows_it(files: Files) -> None:
    files.write("config.toml", 'run_dir = "/run/other"\nstate_dir = "/var/lib/other"\n')
    loaded = files.load().settings
    assert loaded.listen == (Path("/run/other/crisp.sock"),)
    assert loaded.run_socket == Path("/run/other/run.sock")
    assert loaded.admin_socket == Path("/run/other/admin.sock")
    assert loaded.cni_cache_dir == Path("/var/lib/other/cni")
    assert loaded.handler_root("runc") == Path("/run/other/handlers/runc")


def test_all_mistakes_of_all_files_are_told_at_once_in_the_order_of_reading(files: Files) -> None:
    files.write("config.toml", 'run_dir = "run"\n[log]\nlevl = "debug"\nformat = "jsn"\n')
    files.write("conf.d/10.toml", "[network]\nadd_timeout = 30\n\nbin_dirs = [\n  '/a',\n  'b' ]\n")
    files.write("conf.d/20.toml", 'log.level = "debug"\nlog = [\n')
    files.write("conf.d/30.toml", '[images]\nminimum_rate = "3 m/s"\nretries = 99\n')
    assert files.problems() == [
        "config.toml:1: run_dir: 'run' is not an absolute path",
        "config.toml:3: log.levl: unknown key; did you mean 'level'?",
        "config.toml:4: log.format: must be one of 'text', 'json', not the text 'jsn'; did you mean 'json'?",
        "conf.d/10.toml:2: network.add_timeout: a duration is text with a unit, such as '30s' or '500ms', "
        "not the integer 30",
        "conf.d/10.toml:6: network.bin_dirs[1]: 'b' is not an absolute path",
        "conf.d/20.toml:3: is not TOML: invalid value at the end of the file",
        "conf.d/30.toml:2: images.minimum_rate: '3 m/s' is not a size: write a number with a unit "
        "(B, KB, MB, "
        "GB, TB (powers of 1000), KiB, MiB, GiB, TiB (powers of 1024)), such as '64MiB'",
        "conf.d/30.toml:3: images.retries: must be at most 20, not 99",
    ]


def test_a_mistake_is_told_although_a_later_file_replaces_the_value(files: Files) -> None:
    files.write("config.toml", "\nshutdown_timeout = 3\n")
    files.write("conf.d/10.toml", 'shutdown_timeout = "3s"\n')
    assert files.problems() == [
        "config.toml:2: shutdown_timeout: a duration is text with a unit, such as '30s' or '500ms', "
        "not the integer 3"
    ]


def test_a_rule_over_several_keys_is_judged_after_merging(files: Files) -> None:
    files.write("config.toml", "[containers.default_ulimits.core]\nhard = 10\n")
    files.write("conf.d/10.toml", "[containers.default_ulimits]\ncore.soft = 5\n")
    files.write("conf.d/20.toml", "[containers.default_ulimits.nofile]\nsoft = 5\n")
    limits = files.load().settings.containers.default_ulimits
    assert {name: (limit.soft, limit.hard) for name, limit in limits.items()} == {
        "core": (5, 10),
        "nofile": (5, -1),
    }
    files.write("conf.d/30.toml", "\ncontainers.default_ulimits.nofile.hard = 4\n")
    assert files.problems() == [
        "conf.d/20.toml:2: containers.default_ulimits.nofile.soft: the soft limit 5 is above the hard limit 4"
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('lisen = ["/a"]', "config.toml:1: lisen: unknown key; did you mean 'listen'?"),
        ("level = 1", "config.toml:1: level: unknown key; did you mean 'log.level'?"),
        ("levl = 1", "config.toml:1: levl: unknown key; did you mean 'log.level'?"),
        (
            "[images]\nroot = '/x'",
            "config.toml:2: images.root: unknown key; did you mean 'handlers.NAME.root'?",
        ),
        (
            "[cgroup]\nzzz = 1",
            "config.toml:2: cgroup.zzz: unknown key; known here are driver, prefix, monitors",
        ),
        ("[netwrok]\nbuiltin = true", "config.toml:1: netwrok: unknown key; did you mean 'network'?"),
        (
            "[handlers.runc]\nbinry = '/x'",
            "config.toml:2: handlers.runc.binry: unknown key; did you mean 'binary'?",
        ),
        (
            "[handlers.kata]\nkind = 'shim'\nruntime_type = 'kata'",
            "config.toml:3: handlers.kata.runtime_type: 'kata' is no runtime type such as"
            " io.containerd.runc.v2",
        ),
        (
            "\n[handlers.runc]\noptions = ['--debug', '--root=/x']",
            "config.toml:3: handlers.runc.options: '--root=/x' is given by the daemon itself and cannot be "
            "set here",
        ),
        (
            "[handlers]\n'a b' = {}",
            "config.toml:2: handlers.\"a b\": 'a b' cannot name a handler: 1 to 63 letters, digits, "
            "'-', '_', '.'",
        ),
        (
            "[containers]\ndefault_ulimits.nofil = { soft = 1 }",
            "config.toml:2: containers.default_ulimits.nofil: unknown key; did you mean 'nofile'?; "
            "known are as, "
            "core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, "
            "sigpending, stack",
        ),
        (
            "[containers]\ndefault_capabilities = [\n'CAP_CHOWN',\n'chown']",
            "config.toml:4: containers.default_capabilities[1]: 'chown' is not a capability: write it as "
            "capabilities(7) does, such as 'CAP_CHOWN'",
        ),
        (
            f"listen = ['/{'x' * 107}']",
            f"config.toml:1: listen[0]: '/{'x' * 107}' is longer than 107 bytes, the limit of a unix "
            f"socket's path",
        ),
        (
            f"run_dir = '/{'x' * 100}'",
            f"config.toml:1: run_dir: the default of listen is '/{'x' * 100}/crisp.sock', longer than "
            f"107 bytes",
        ),
        (
            "listen = ['/a', '/b']\nadmin_socket = '/b'",
            "config.toml:2: admin_socket: '/b' is given twice, here and in listen",
        ),
        (
            "listen = ['/a', '/run/crio/crio.sock']\n[kubelet]\ncadvisor_socket = '/var/run/crio/crio.sock'",
            "config.toml:3: kubelet.cadvisor_socket: '/var/run/crio/crio.sock' is given twice, here and in "
            "listen",
        ),
        ("listen = []", "config.toml:1: listen: the array must not be empty"),
        ("state_dir = '/a/../b'", "config.toml:1: state_dir: '/a/../b' holds '..'"),
        (
            "[images]\nstall_timeout = '0s'",
            "config.toml:2: images.stall_timeout: the duration must be longer than 0",
        ),
        (
            "[network]\nbuiltin_subnets = ['10.0.0.1/16']",
            "config.toml:2: network.builtin_subnets[0]: '10.0.0.1/16' is not a subnet such as "
            "'10.84.0.0/16': "
            "10.0.0.1/16 has host bits set",
        ),
        (
            "[network]\nbuiltin_subnets = ['10.0.0.0/16', '10.1.0.0/16']",
            "config.toml:2: network.builtin_subnets: there may be one subnet of IPv4 and one of IPv6, "
            "not two of "
            "one kind",
        ),
        (
            "[network]\nbuiltin_bridge = 'much-too-long-name'",
            "config.toml:2: network.builtin_bridge: 'much-too-long-name' cannot name a network "
            "interface: 1 to 15 "
            "characters without '/', ':', blanks",
        ),
        (
            "[cgroup]\nmonitors = 'crisp.scope'",
            "config.toml:2: cgroup.monitors: 'crisp.scope' must be a slice such as "
            "'crisp-monitors.slice' or a "
            "path such as '/crisp'",
        ),
        (
            "[containers]\ndefault_env = ['A=1', 'B']",
            "config.toml:2: containers.default_env[1]: 'B' is not an environment entry: write NAME=VALUE",
        ),
        (
            "[containers]\ndefault_sysctls = ['vm']",
            "config.toml:2: containers.default_sysctls[0]: 'vm' is not a sysctl: write NAME=VALUE",
        ),
        (
            "[containers]\ndefault_mounts = ['/a']",
            "config.toml:2: containers.default_mounts[0]: '/a' is not a mount: write SOURCE:TARGET or"
            " SOURCE:TARGET:ro",
        ),
        (
            "[containers]\ndefault_mounts = ['/a:/proc/b']",
            "config.toml:2: containers.default_mounts[0]: '/a:/proc/b': neither / nor /proc can be"
            " mounted over",
        ),
        (
            "[containers]\ntimezone = '../../etc/passwd'",
            "config.toml:2: containers.timezone: '../../etc/passwd' is not a time zone such as"
            " 'Europe/Vienna', nor 'local'",
        ),
        (
            "[containers]\numask = '8'",
            "config.toml:2: containers.umask: '8' is not a umask: write three or four octal digits, such as"
            " '0027'",
        ),
        (
            "[containers]\nmasked_paths = ['proc']",
            "config.toml:2: containers.masked_paths[0]: 'proc' is not an absolute path without '..'",
        ),
        (
            "[containers]\napparmor_profile = 'a b'",
            "config.toml:2: containers.apparmor_profile: 'a b' cannot name an AppArmor profile",
        ),
        (
            "[cgroup]\nprefix = 'a-b'",
            "config.toml:2: cgroup.prefix: 'a-b' must be 1 to 32 letters, digits or '_'",
        ),
        ("a = 1\na = 2\n", "config.toml:2: is not TOML: cannot overwrite a value at column 6"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_what_would_do(files: Files, content: str, problem: str) -> None:
    files.write("config.toml", content)
    assert files.problems() == [problem]


ACCEPTED = {Seconds: "text", Bytes: "text", Path: "text", str: "text", bool: "boolean", int: "integer"}
KINDS = {
    "boolean": "true",
    "integer": "7",
    "float": "7.5",
    "text": '"7"',
    "array": "[7]",
    "table": "{ seven = 7 }",
    "date": "1979-05-27",
}


def kind_of(annotation: Any) -> str:
    """The TOML type that a field takes."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return kind_of(arguments[0])
    if origin is typing.Annotated:
        return kind_of(arguments[0])
    if origin is typing.Literal:
        return "text"
    return {tuple: "array", dict: "table"}.get(origin) or ACCEPTED[annotation]


def field_type(key: str) -> Any:
    table: type[Table] = Settings
    annotation: Any = None
    for part in key.split("."):
        if part != "NAME":
            annotation = table.model_fields[part].annotation
            table = table_of(annotation)[0] or table
    return annotation


@pytest.mark.parametrize("key", known_keys())
def test_every_key_refuses_every_wrong_type_at_its_line(files: Files, key: str) -> None:
    right = kind_of(field_type(key))
    written = key.replace("default_ulimits.NAME", "default_ulimits.nofile").replace("NAME", "some")
    for kind, value in KINDS.items():
        if kind == right:
            continue
        files.write("config.toml", f"# a comment\n\n{written} = {value}\n")
        problems = files.problems()
        assert len(problems) == 1, (kind, problems)
        assert problems[0].startswith(f"config.toml:3: {written}: "), (kind, problems)
        shown = {"boolean": "the boolean true", "integer": "the integer 7", "text": "the text '7'"}
        assert problems[0].endswith(f"not {shown.get(kind, '')}") or kind not in shown, (kind, problems)


@pytest.mark.parametrize("key", known_keys())
def test_every_key_misspelt_names_the_right_one(files: Files, key: str) -> None:
    written = key.replace("default_ulimits.NAME", "default_ulimits.nofile").replace("NAME", "some")
    name = written.rpartition(".")[2]
    files.write("config.toml", f"\n{written}x = 1\n")
    assert files.problems() == [f"config.toml:2: {written}x: unknown key; did you mean '{name}'?"]


def test_a_file_that_cannot_be_read_is_told_with_its_errno(files: Files) -> None:
    (files.directory / "conf.d").mkdir()
    (files.directory / "conf.d/10.toml").mkdir()
    (files.directory / "conf.d/20.toml").symlink_to("nowhere")
    (files.directory / "conf.d/30.toml").symlink_to("30.toml")
    os.mkfifo(files.directory / "conf.d/40.toml")
    files.write("conf.d/50.toml", b"# \xff\n")
    files.write("conf.d/60.toml", b"\n\n# caf\xe9\n")
    files.write("conf.d/70.toml", b"#" * (MAX_FILE_SIZE + 1))
    files.write("conf.d/80.toml", "a = " + "[" * 100_000)
    assert files.problems() == [
        "conf.d/10.toml: cannot be read: Is a directory (errno 21)",
        "conf.d/20.toml: cannot be read: No such file or directory (errno 2)",
        "conf.d/30.toml: cannot be read: Too many levels of symbolic links (errno 40)",
        "conf.d/40.toml: cannot be read: it is not a regular file",
        "conf.d/50.toml:1: is not UTF-8: invalid start byte",
        "conf.d/60.toml:3: is not UTF-8: invalid continuation byte",
        "conf.d/70.toml: is larger than 1048576 bytes, which no configuration is",
        "conf.d/80.toml: nests arrays or tables too deeply",
    ]


def test_a_drop_in_directory_that_is_a_file_is_told(files: Files) -> None:
    files.write("conf.d", "")
    assert files.problems() == ["conf.d: cannot be read: Not a directory (errno 20)"]


def test_a_missing_file_is_refused_where_it_was_asked_for(files: Files) -> None:
    with pytest.raises(ConfigError) as refused:
        load(files.main, required=True)
    assert str(refused.value) == f"{files.main}: cannot be read: No such file or directory (errno 2)"


def test_one_file_is_judged_by_itself(files: Files) -> None:
    good = files.write("good.toml", "[network]\nbuiltin = true\n")
    bad = files.write("bad.toml", "[network]\nbuiltin = 1\nadd_timeout = '3'\n")
    files.write("conf.d/10.toml", "not looked at")
    assert check(good) == ()
    assert [str(problem).removeprefix(f"{bad}:") for problem in check(bad)] == [
        "2: network.builtin: must be a boolean (true or false), not the integer 1",
        "3: network.add_timeout: '3' is not a duration: write a number with a unit (ms, s, m, h, "
        "d), such as '30s'"
        " or '1m30s'",
    ]
    assert [str(problem) for problem in check(files.directory / "none.toml")] == [
        f"{files.directory}/none.toml: cannot be read: No such file or directory (errno 2)"
    ]
