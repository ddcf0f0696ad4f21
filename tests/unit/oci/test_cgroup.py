"""cgroup names of both drivers, and the kernel's texts as numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci import cgroup
from oci.cgroup import (
    CgroupPlace,
    CpuUsage,
    DeviceIo,
    MemoryUsage,
    Pressure,
    PressureStall,
    SwapUsage,
    place,
    pod_path,
    slice_path,
)
from oci.errors import BadInput

ID = "a" * 64


@pytest.mark.parametrize("parent", ["/kubepods/pod1", "/kubepods/pod1/", "//kubepods//pod1"])
def test_a_path_is_both_names_with_cgroupfs(parent: str) -> None:
    path = f"/kubepods/pod1/{ID}"
    assert place(parent, ID, systemd=False) == CgroupPlace(config_path=path, kernel_path=path, systemd=False)


@pytest.mark.parametrize(
    "parent",
    [
        "kubepods-pod1.slice",
        "/kubepods-pod1.slice",
        "/kubepods.slice/kubepods-pod1.slice",
        "/kubepods.slice/kubepods-pod1.slice/",
    ],
)
def test_a_slice_expands_to_where_systemd_puts_it(parent: str) -> None:
    assert place(parent, ID, systemd=True) == CgroupPlace(
        config_path=f"kubepods-pod1.slice:crisp:{ID}",
        kernel_path=f"/kubepods.slice/kubepods-pod1.slice/crisp-{ID}.scope",
        systemd=True,
    )


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.slice", "/a.slice"),
        ("a-b.slice", "/a.slice/a-b.slice"),
        ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
        ("-.slice", ""),
    ],
)
def test_each_dash_of_a_slice_is_a_level(name: str, path: str) -> None:
    assert slice_path(name) == path


def test_no_parent_is_crisps_own() -> None:
    assert place("", ID, systemd=False).kernel_path == f"/crisp/{ID}"
    assert place("", ID, systemd=True).kernel_path == f"/system.slice/crisp-{ID}.scope"
    assert (pod_path("/a/b", systemd=False), pod_path("a-b.slice", systemd=True)) == (
        "/a/b",
        "/a.slice/a-b.slice",
    )


@pytest.mark.parametrize(
    ("parent", "systemd", "message"),
    [
        ("kubepods/pod1", False, "is not an absolute path"),
        ("/a/../b", False, "contains '.' or '..'"),
        ("/./b", False, "contains '.' or '..'"),
        ("/kubepods.slice", False, "set the same cgroupDriver"),
        ("/a\nb", False, "control characters"),
        ("/" + "a" * 3000, False, "longer than 3000"),
        ("/kubepods/pod1", True, "set the same cgroupDriver"),
        ("a--b.slice", True, "is not a systemd slice"),
        (".slice", True, "is not a systemd slice"),
        ("../a.slice", True, "contains '..'"),
        ("a b.slice", True, "is not a systemd slice"),
        ("a:b:c.slice;x", True, "is not a systemd slice"),
    ],
)
def test_a_parent_of_the_wrong_form_is_refused(parent: str, systemd: bool, message: str) -> None:
    with pytest.raises(BadInput, match=r"^linux\.cgroup_parent: ") as caught:
        place(parent, ID, systemd=systemd)
    assert message in caught.value.message


@pytest.mark.parametrize("leaf", ["", "..", "a/b", "-a", "a b"])
def test_a_leaf_that_is_no_name_is_refused(leaf: str) -> None:
    with pytest.raises(BadInput, match="cgroup leaf"):
        place("/a", leaf, systemd=False)


@given(st.text(max_size=30))
def test_no_parent_leads_out_of_itself(parent: str) -> None:
    for systemd in (False, True):
        try:
            made = place(parent, ID, systemd=systemd)
        except BadInput:
            continue
        assert made.kernel_path.startswith("/") and ".." not in made.kernel_path.split("/")
        assert made.kernel_path.rsplit("/", 1)[1] in (ID, f"crisp-{ID}.scope")


def test_cpu_of_version_2_is_in_microseconds() -> None:
    text = "usage_usec 15\nuser_usec 10\nsystem_usec 5\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n"
    assert cgroup.cpu_v2(text) == CpuUsage(
        total=15000, user=10000, system=5000, periods=4, throttled_periods=2, throttled=7000
    )
    assert cgroup.cpu_v2("") is None


def test_cpu_of_version_1_is_in_nanoseconds() -> None:
    stat = "nr_periods 4\nnr_throttled 2\nthrottled_time 7\n"
    assert cgroup.cpu_v1("15\n", user="10\n", system="5\n", stat=stat) == CpuUsage(
        total=15, user=10, system=5, periods=4, throttled_periods=2, throttled=7
    )
    assert cgroup.cpu_v1("") is None


def test_memory_of_version_2_leaves_the_inactive_cache_out_of_the_working_set() -> None:
    stat = (
        "anon 300\nfile 600\nkernel 40\nfile_mapped 20\ninactive_file 500\npgfault 9\npgmajfault 2\n"
        "workingset_refault_anon 0\n"
    )
    made = cgroup.memory_v2("1000\n", stat=stat, maximum="4000\n", peak="2000\n")
    assert made == MemoryUsage(
        usage=1000, working_set=500, rss=300, cache=600, mapped_file=20, kernel=40, page_faults=9,
        major_page_faults=2, limit=4000, peak=2000,
    )  # fmt: skip
    assert made.available == 3500


def test_memory_of_version_1_counts_the_whole_tree() -> None:
    stat = (
        "cache 1\nrss 2\ntotal_cache 600\ntotal_rss 300\ntotal_inactive_file 500\n"
        "total_pgfault 9\ntotal_pgmajfault 2\n"
    )
    made = cgroup.memory_v1("1000\n", stat=stat, maximum="9223372036854771712\n", failcnt="3\n")
    assert made == MemoryUsage(
        usage=1000, working_set=500, rss=300, cache=600, page_faults=9, major_page_faults=2, failures=3
    )
    assert made.available is None


def test_a_working_set_is_never_negative_and_absent_memory_is_none() -> None:
    made = cgroup.memory_v2("10", stat="inactive_file 50", maximum="5")
    assert made is not None and (made.working_set, made.available) == (0, 5)
    assert cgroup.memory_v2("", stat="") is None
    assert cgroup.memory_v1("", stat="") is None


def test_swap_is_what_the_combined_counter_of_version_1_has_more() -> None:
    memory = cgroup.memory_v1("1000", stat="", maximum="4000")
    assert memory is not None
    assert cgroup.swap_v1(memory, memsw_usage="1500", memsw_limit="6000") == SwapUsage(usage=500, limit=2000)
    assert cgroup.swap_v1(memory, memsw_usage="900", memsw_limit="9223372036854771712") == SwapUsage(usage=0)
    assert cgroup.swap_v1(memory, memsw_usage="") is None
    assert cgroup.swap_v2("5\n", maximum="max\n") == SwapUsage(usage=5)
    limited = cgroup.swap_v2("5\n", maximum="7\n")
    assert limited is not None and limited.available == 2


@pytest.mark.parametrize(
    "text",
    [
        "low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\noom_group_kill 0\n",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    ],
)
def test_oom_kills_are_counted_in_both_versions(text: str) -> None:
    assert cgroup.oom_kills(text) == 2


def test_pressure_totals_become_nanoseconds() -> None:
    text = "some avg10=0.12 avg60=1.50 avg300=2.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.25 total=7\n"
    assert cgroup.pressure(text) == PressureStall(
        some=Pressure(avg10=0.12, avg60=1.5, avg300=2.0, total=42000),
        full=Pressure(avg300=0.25, total=7000),
    )
    only = cgroup.pressure(text.splitlines()[0])
    assert only is not None and only.full == Pressure()


@pytest.mark.parametrize(
    "text", ["", "some avg10=x avg60=1 avg300=1 total=1", "some", "full avg10=0 avg60=0 avg300=0 total=1"]
)
def test_odd_pressure_is_none(text: str) -> None:
    assert cgroup.pressure(text) is None


def test_io_has_one_form_for_both_versions() -> None:
    values = {"rbytes": 1, "wbytes": 2, "rios": 3, "wios": 4}
    expected = (DeviceIo(major=8, minor=16, values=values),)
    assert cgroup.io_v2("8:16 rbytes=1 wbytes=2 rios=3 wios=4\n") == expected
    assert (
        cgroup.io_v1("8:16 Read 1\n8:16 Write 2\n8:16 Sync 9\nTotal 3\n", "8:16 Read 3\n8:16 Write 4\n")
        == expected
    )


def test_a_process_knows_its_groups() -> None:
    text = "3:cpu,cpuacct:/a:b\n1:name=systemd:/s\n0::/u\n\n"
    assert cgroup.own_paths(text) == {"cpu": "/a:b", "cpuacct": "/a:b", "name=systemd": "/s", "": "/u"}


@given(st.text(alphabet="0123456789 \n:=.abMx-", max_size=80))
def test_no_text_breaks_the_reading(text: str) -> None:
    cgroup.flat_keyed(text)
    cgroup.pressure(text)
    cgroup.io_v2(text)
    cgroup.io_v1(text, text)
    cgroup.own_paths(text)
    cgroup.limit(text)
