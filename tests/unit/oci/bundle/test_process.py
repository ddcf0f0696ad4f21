"""Arguments, environment, limits: the process of a container."""

from __future__ import annotations

import pytest

from oci.bundle import BundleDefaults, Rlimit, build, exec_process
from oci.bundle.process import args, env, oom_score_adj, rlimits, working_dir
from oci.errors import BadInput
from oci.facts import ResolvedUser
from oci.image import ImageConfig
from tests import bundles

IMAGE = ImageConfig(
    entrypoint=("/entry", "-e"),
    cmd=("cmd", "-c"),
    env=("PATH=/image/bin", "A=1", "B=2", "odd"),
    working_dir="srv",
)


def _env(*envs: tuple[str, str], **changed: object) -> tuple[list[str], list[str]]:
    return env(
        bundles.container(envs=envs, **changed),
        IMAGE,
        hostname="web-0",
        user=ResolvedUser(home="/home/web"),
        defaults=BundleDefaults(env=(("NODE", "n1"), ("A", "node"))),
    )


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        ((), (), ["/entry", "-e", "cmd", "-c"]),
        (("run",), (), ["run"]),
        (("run",), ("x",), ["run", "x"]),
        ((), ("x",), ["/entry", "-e", "x"]),
    ],
)
def test_command_replaces_the_image_and_arguments_only_its_cmd(
    command: tuple[str, ...], arguments: tuple[str, ...], expected: list[str]
) -> None:
    assert args(bundles.container(command=command, args=arguments), IMAGE) == expected


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ((), "^config.command: neither the request nor the image names a program"),
        (("",), "^config.command: neither"),
        (("a\0b",), "^config.command, argument 0: contains a NUL"),
        (("a", "x" * 131072), "^config.command, argument 1: longer than 131071 bytes"),
        (("a", "é" * 65536), "^config.command, argument 1: longer than 131071 bytes"),
    ],
)
def test_what_execve_cannot_take_is_refused(command: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        args(bundles.container(command=command), ImageConfig())


def test_the_longest_argument_is_taken() -> None:
    assert args(bundles.container(command=("x" * 131071,)), ImageConfig()) == ["x" * 131071]


def test_later_environments_replace_earlier_ones_in_their_place() -> None:
    assert _env(("B", "mine"), ("C", "=3"), ("C", "4")) == (
        ["HOSTNAME=web-0", "NODE=n1", "A=1", "PATH=/image/bin", "B=mine", "C=4", "HOME=/home/web"],
        [],
    )


def test_a_terminal_gets_a_type_unless_one_is_set() -> None:
    assert "TERM=xterm" in _env(tty=True)[0]
    assert "TERM=vt100" in _env(("TERM", "vt100"), tty=True)[0]
    assert not any(entry.startswith("TERM=") for entry in _env()[0])


def test_the_request_may_set_host_name_home_and_path() -> None:
    strings = _env(("HOSTNAME", "h"), ("HOME", "/h"), ("PATH", "/p"))[0]
    assert strings == ["HOSTNAME=h", "NODE=n1", "A=1", "PATH=/p", "B=2", "HOME=/h"]


@pytest.mark.parametrize("name", ["", "A=B", "N\0L"])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"^config\.envs"):
        _env((name, "v"))


def test_a_value_over_the_kernels_limit_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match=r"^config\.envs, variable 'BIG': longer than 131071 bytes"):
        _env(("BIG", "x" * 131072))


def test_bytes_that_are_not_utf8_are_replaced_and_told_without_the_value() -> None:
    strings, notes = _env(("KEY", "secret\udcff"))
    assert strings[-2] == "KEY=secret\ufffd"
    assert notes == ["environment variable 'KEY': bytes that are not UTF-8 became U+FFFD"]


def test_newlines_in_a_value_stay_in_that_value() -> None:
    assert "KEY=a\nPATH=/evil" in _env(("KEY", "a\nPATH=/evil"))[0]


def test_the_working_directory_is_the_requests_then_the_images_then_the_root() -> None:
    assert working_dir(bundles.container(working_dir="/a/./b/"), IMAGE) == "/a/b"
    assert working_dir(bundles.container(), IMAGE) == "/srv"
    assert working_dir(bundles.container(), ImageConfig()) == "/"


@pytest.mark.parametrize(
    "path", ["/proc/self/fd/7", "/proc/1/cwd", "/dev/fd/3", "//proc/self/fd", "/proc/self/task/1/fd/8"]
)
def test_a_descriptor_cannot_be_the_working_directory(path: str) -> None:
    with pytest.raises(BadInput, match=r"^config\.working_dir: .* leads through a process's descriptors"):
        working_dir(bundles.container(working_dir=path), IMAGE)


def test_an_oom_score_the_daemon_cannot_give_is_raised_and_told() -> None:
    weak = bundles.host(lowest_oom_score_adj=-5)
    assert oom_score_adj(-999, bundles.host()) == (-999, [])
    assert oom_score_adj(1000, weak) == (1000, [])
    assert oom_score_adj(-999, weak) == (
        -5,
        ["oom_score_adj -999 raised to -5: the daemon has no CAP_SYS_RESOURCE"],
    )


@pytest.mark.parametrize("score", [-1001, 1001, 2**63])
def test_an_oom_score_outside_the_kernels_range_is_refused(score: int) -> None:
    with pytest.raises(BadInput, match=r"^config\.linux\.resources\.oom_score_adj"):
        oom_score_adj(score, bundles.host())


def test_hard_limits_above_the_daemons_own_are_lowered_only_where_it_cannot_raise_them() -> None:
    wanted = {"RLIMIT_NOFILE": Rlimit(soft=1024, hard=524288), "RLIMIT_CORE": Rlimit(soft=-1, hard=-1)}
    strong = bundles.host(rlimits={"RLIMIT_NOFILE": 4096, "RLIMIT_CORE": 0})
    weak = bundles.host(rlimits={"RLIMIT_NOFILE": 512, "RLIMIT_CORE": -1}, capabilities=frozenset())
    infinity = 2**64 - 1
    assert rlimits(wanted, strong) == (
        [
            {"type": "RLIMIT_CORE", "soft": infinity, "hard": infinity},
            {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 524288},
        ],
        [],
    )
    assert rlimits(wanted, weak) == (
        [
            {"type": "RLIMIT_CORE", "soft": infinity, "hard": infinity},
            {"type": "RLIMIT_NOFILE", "soft": 512, "hard": 512},
        ],
        ["RLIMIT_NOFILE hard limit lowered to 512: the daemon has no CAP_SYS_RESOURCE"],
    )


def test_an_exec_is_the_containers_process_with_other_arguments() -> None:
    own = build(bundles.inputs(container=bundles.container(tty=True))).config["process"]
    assert exec_process(own, ["ls", "-l"]) == {**own, "args": ["ls", "-l"], "terminal": False}
    assert own["args"] == ["/bin/app"]


@pytest.mark.parametrize("command", [[], [""], ["a\0"], ["a", "x" * 131072], ["\udcff"]])
def test_an_exec_that_cannot_run_is_refused(command: list[str]) -> None:
    with pytest.raises(BadInput, match=r"^cmd"):
        exec_process({}, command)
