import os

import pytest

from ipucnn.core import machine
from ipucnn.core.machine import (
    Share,
    available_memory,
    cgroup_quota,
    compute_threads,
    openmp_limit,
    physical_cores,
    shares,
    thread_count,
    usable_cores,
)


def write(root, path, content):
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(content)


def test_no_cgroups(tmp_path):
    assert cgroup_quota(tmp_path) is None
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_v2_takes_the_smallest_limit_around_the_group(tmp_path):
    write(tmp_path, "proc/self/cgroup", "0::/user/job\n")
    write(tmp_path, "sys/fs/cgroup/user/job/cpu.max", "max 100000\n")
    assert cgroup_quota(tmp_path) is None
    write(tmp_path, "sys/fs/cgroup/user/cpu.max", "150000 100000\n")
    assert cgroup_quota(tmp_path) == 1.5
    write(tmp_path, "sys/fs/cgroup/user/job/cpu.max", "50000 100000\n")
    assert cgroup_quota(tmp_path) == 0.5
    assert usable_cores(tmp_path) == 1


def test_v2_in_a_container_sees_only_its_own_mount(tmp_path):
    write(tmp_path, "proc/self/cgroup", "0::/docker/0123abcd\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "200000 100000\n")
    assert cgroup_quota(tmp_path) == 2.0


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct", "cpuacct,cpu"])
def test_v1(tmp_path, controllers):
    write(tmp_path, "proc/self/cgroup", f"7:memory:/job\n4:{controllers}:/job\n")
    folder = f"sys/fs/cgroup/{controllers}/job"
    write(tmp_path, f"{folder}/cpu.cfs_period_us", "100000\n")
    write(tmp_path, f"{folder}/cpu.cfs_quota_us", "-1\n")
    assert cgroup_quota(tmp_path) is None
    write(tmp_path, f"{folder}/cpu.cfs_quota_us", "250000\n")
    assert cgroup_quota(tmp_path) == 2.5


def test_nonsense_is_no_limit(tmp_path):
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "lots\n")
    assert cgroup_quota(tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity")
def test_affinity(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7})
    assert usable_cores(tmp_path) == 3
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "110000 100000\n")
    assert usable_cores(tmp_path) == 2


@pytest.mark.parametrize(("cores", "quota", "count", "expected"), [
    ({0, 1, 2, 3, 8}, None, 2, [((0, 1), 2), ((2, 3, 8), 3)]),
    ({4, 5}, None, 3, [((4,), 1), ((5,), 1), ((4,), 1)]),
    (set(range(8)), 2.5, 2, [((0, 1, 2, 3), 1), ((4, 5, 6, 7), 2)])])
def test_cores_are_shared_by_neighbourhood(monkeypatch, cores, quota, count, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr(machine, "cgroup_quota", lambda _: quota)
    assert [(share.cores, share.count) for share in shares(count)] == expected


def test_a_share_is_kept_to(monkeypatch):
    bound = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: bound.append(cores),
                        raising=False)
    monkeypatch.setattr(machine, "_share", None)
    Share((0,), 1).take()
    assert bound == [(0,)]
    assert usable_cores() == 1


def test_where_processes_cannot_be_bound_threads_are_counted(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setattr(machine, "_share", None)
    share = shares(2)[0]
    assert share.cores == ()
    share.take()
    assert os.environ["OMP_NUM_THREADS"] == str(share.count)


@pytest.mark.parametrize(("value", "limit"), [
    ("3", 3), (" 2 ", 2), ("5,2", 5), ("", None), ("0", None), ("-1", None), ("many", None)])
def test_the_limit_of_openmp(monkeypatch, value, limit):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert openmp_limit() == limit


def test_threads_are_the_smallest_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(machine, "_share", None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert thread_count(tmp_path) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_count(tmp_path) == 3
    assert usable_cores(tmp_path) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert thread_count(tmp_path) == 4
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "150000 100000\n")
    assert thread_count(tmp_path) == 2


@pytest.mark.parametrize("file", ["core_cpus_list", "thread_siblings_list"])
def test_an_engine_computes_with_a_thread_per_physical_core(monkeypatch, tmp_path, file):
    """Two cores of two threads each, as Linux numbers them: 0 and 2, 1 and 3."""
    for cpu in range(4):
        write(tmp_path, f"sys/devices/system/cpu/cpu{cpu}/topology/{file}",
              f"{cpu % 2},{cpu % 2 + 2}\n")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert physical_cores(tmp_path) == compute_threads(tmp_path) == 2
    assert thread_count(tmp_path) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert compute_threads(tmp_path) == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 3})
    assert physical_cores(tmp_path) == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "100000 100000\n")
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    assert compute_threads(tmp_path) == 1


def test_cpus_without_a_topology_are_cores(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6})
    assert physical_cores(tmp_path) == 3


def test_shares_divide_physical_cores(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(machine, "_core_of", lambda cpu: cpu % 4)
    assert [share.cores for share in shares(2)] == [(0, 4, 1, 5), (2, 6, 3, 7)]


def test_memory_is_that_of_the_system_or_what_the_group_has_left(tmp_path):
    write(tmp_path, "proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable:    4000000 kB\n")
    write(tmp_path, "proc/self/cgroup", "0::/box/job\n")
    assert available_memory(tmp_path) == 4000000 * 1024
    group = "sys/fs/cgroup/box"
    write(tmp_path, f"{group}/memory.max", "3000000000\n")
    write(tmp_path, f"{group}/memory.current", "2000000000\n")
    write(tmp_path, f"{group}/memory.stat", "anon 5\ninactive_file 500000000\n")
    write(tmp_path, f"{group}/job/memory.max", "max\n")
    write(tmp_path, f"{group}/job/memory.current", "7\n")
    write(tmp_path, f"{group}/job/memory.stat", "anon 7\n")
    assert available_memory(tmp_path) == 1500000000
    assert available_memory(tmp_path / "nowhere") is None


def test_the_memory_limit_is_that_of_the_smallest_enclosing_group(tmp_path):
    total = machine.memory_limit(tmp_path)
    assert total >= 1 << 28
    write(tmp_path, "proc/self/cgroup", "0::/slurm/job_7/step_0\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", "max\n")
    write(tmp_path, "sys/fs/cgroup/slurm/job_7/step_0/memory.max", "max\n")
    assert machine.memory_limit(tmp_path) == total
    write(tmp_path, "sys/fs/cgroup/slurm/job_7/memory.max", "1000\n")
    assert machine.memory_limit(tmp_path) == 1000
    write(tmp_path, "sys/fs/cgroup/memory.max", "900\n")  # as a container sees its own
    assert machine.memory_limit(tmp_path) == 900


def test_the_memory_limit_of_the_older_hierarchy(tmp_path):
    write(tmp_path, "proc/self/cgroup", "9:cpu:/\n5:memory:/docker/abc\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert machine.memory_limit(tmp_path) == machine.memory_limit(tmp_path / "nowhere")
    write(tmp_path, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "2000\n")
    assert machine.memory_limit(tmp_path) == 2000


def test_a_thread_limit_of_thousands_of_digits_is_ignored(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "9" * 5000)
    assert openmp_limit() is None
