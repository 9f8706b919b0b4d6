"""A stand-in for the `poprun` launcher: real processes on this machine, its environment.

`python poprun.py --num-instances 2 --num-replicas 4 --ipus-per-replica 1 COMMAND ...`; options
that the contract file does not list are refused. With POPRUN_DOUBLE_HOROVOD=real the processes
get the installed Horovod, over Gloo, instead of its double.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

DOUBLES = Path(__file__).parent
REAL_HOROVOD = os.environ.get("POPRUN_DOUBLE_HOROVOD") == "real"


def parser():
    contract = json.loads((DOUBLES / "contracts" / "popdist-3.3.json").read_text())
    made = argparse.ArgumentParser(allow_abbrev=False)
    for line in contract["poprun_options"]:
        for name in line.partition("(")[0].replace("/", " ").split():
            if name in ("-v", "--vv", "--print-topology", "--offline-mode"):
                made.add_argument(name, action="store_true")
            else:
                made.add_argument(name)
    made.add_argument("command", nargs=argparse.REMAINDER)
    return made


def loopback():
    """Return the network interface on which processes of one machine meet, whatever its name."""
    return next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")


def environments(replicas, instances, ipus_per_replica, store):
    """Return what each instance finds in its environment."""
    if replicas % instances:
        sys.exit("poprun: the replicas cannot be divided among the instances")
    local = replicas // instances
    host = [] if REAL_HOROVOD else [str(DOUBLES / "host")]
    path = os.pathsep.join([str(DOUBLES), *host, *filter(None, [os.environ.get("PYTHONPATH")])])
    return [{**os.environ, "PYTHONPATH": path, "POPTORCH_DOUBLE_TORCH": "any",
             "POPDIST_NUM_TOTAL_REPLICAS": str(replicas),
             "POPDIST_NUM_LOCAL_REPLICAS": str(local),
             "POPDIST_NUM_IPUS_PER_REPLICA": str(ipus_per_replica),
             "POPDIST_REPLICA_INDEX_OFFSET": str(index * local),
             "POPDIST_LOCAL_INSTANCE_INDEX": str(index),
             "POPDIST_UNIFORM_REPLICAS_PER_INSTANCE": "1", "POPDIST_DOUBLE_STORE": store,
             "GLOO_SOCKET_IFNAME": loopback(),
             "OMPI_COMM_WORLD_RANK": str(index), "OMPI_COMM_WORLD_SIZE": str(instances)}
            for index in range(instances)]


def rendezvous(instances):
    """Start what processes of the real Horovod find each other through; return its variables."""
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.http.http_server import RendezvousServer

    server = RendezvousServer(verbose=0)
    port = server.start()
    server.init(get_host_assignments(parse_hosts(f"localhost:{instances}"), instances))
    return [{"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
             "HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo",
             "HOROVOD_GLOO_IFACE": loopback(), "HOROVOD_HOSTNAME": "localhost",
             "HOROVOD_RANK": str(index), "HOROVOD_SIZE": str(instances),
             "HOROVOD_LOCAL_RANK": str(index), "HOROVOD_LOCAL_SIZE": str(instances),
             "HOROVOD_CROSS_RANK": "0", "HOROVOD_CROSS_SIZE": "1"} for index in range(instances)]


def main(start=subprocess.Popen):
    given = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        instances = int(given.num_instances or 1)
        more = rendezvous(instances) if REAL_HOROVOD else [{}] * instances
        running = [start(given.command, env={**environment, **variables})
                   for environment, variables in zip(environments(
                       int(given.num_replicas or 1), instances, int(given.ipus_per_replica or 1),
                       os.path.join(folder, "store")), more)]

        def forward(number, _frame):
            for process in running:
                process.send_signal(number)

        signal.signal(signal.SIGTERM, forward)
        signal.signal(signal.SIGINT, forward)
        codes = [None] * len(running)
        while None in codes:
            for index, process in enumerate(running):
                try:
                    codes[index] = process.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
            failed = [code for code in codes if code not in (None, 0, 130, 143)]
            if failed:  # the launcher ends all when one fails
                for process in running:
                    process.kill()
                return failed[0]
        return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
