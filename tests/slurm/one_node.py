"""A Slurm of one node on this machine, all of it in one folder: munged, slurmctld and slurmd, as root, without systemd.

It keeps no accounting (`sacct` fails), as some clusters do. The node has two processors whatever the machine has, and
no GPU unless one is made up: /dev/null, which Slurm hands out as it does any other.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scancel")
SYSTEM = Path("/etc/slurm")
"""Where `srun` looks in a job, whose environment lacks SLURM_CONF."""


def missing() -> str | None:
    """Why no Slurm can be started here; None if one can."""
    if os.geteuid():
        return "only root can start a Slurm"
    if lacking := [name for name in PROGRAMS if not shutil.which(name)]:
        return f"no {', '.join(lacking)}; on Debian: apt-get install slurmctld slurmd munge slurm-client"
    if (SYSTEM / "slurm.conf").exists():
        return f"{SYSTEM}/slurm.conf is there: this machine has a Slurm of its own"
    return None


class OneNode:
    """A Slurm in `folder`, from `start` to `stop`.

    Args:
        folder: an empty folder, with a short path (a socket lies in it).
        gpus: GPUs that the node is said to have.
    """

    def __init__(self, folder: Path, gpus: int = 0) -> None:
        self.folder, self.gpus = folder, gpus
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._linked: list[Path] = []

    def start(self) -> None:
        """Start all of it and wait until the node takes jobs."""
        for name in ("state", "spool", "log", "munge"):
            (self.folder / name).mkdir(mode=0o755)
        try:
            self._start_munge()
            self._configure()
            subprocess.run(["slurmctld"], env=os.environ | self.environment, check=True)
            subprocess.run(["slurmd", "-N", self._host()], env=os.environ | self.environment, check=True)
            self._wait_for_node()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End jobs and daemons, and remove the links outside of the folder."""
        if self._pid("slurmctld"):
            self.call("scancel", "--user", "root", check=False)
            self._wait(lambda: not self.queue("RUNNING,COMPLETING,PENDING"), 20)
        for name in ("slurmd", "slurmctld", "munged"):
            if pid := self._pid(name):
                os.kill(pid, 15)
                if not self._wait(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 10):
                    os.kill(pid, 9)
        for link in self._linked:
            link.unlink(missing_ok=True)
        if SYSTEM.is_dir() and not any(SYSTEM.iterdir()):
            SYSTEM.rmdir()

    def call(self, *command: str, check: bool = True) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert not check or not done.returncode, done.stderr
        return done.stdout

    def queue(self, states: str = "all") -> dict[str, tuple[str, str]]:
        """Jobs in some states, those that are over for an hour included: id -> (state, comment)."""
        lines = self.call("squeue", "--noheader", f"--states={states}", "--format=%i|%T|%k").splitlines()
        return {number: (state, comment) for number, state, comment in (line.split("|", 2) for line in lines)}

    def _host(self) -> str:
        return socket.gethostname().partition(".")[0]

    def _pid(self, name: str) -> int | None:
        """The process of a daemon that was started here and still runs."""
        try:
            pid = int((self.folder / f"{name}.pid").read_text())
            return pid if name in Path(f"/proc/{pid}/comm").read_text() else None
        except (OSError, ValueError):
            return None

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        key = folder / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        # The socket may lie in a folder that others can write to, such as /tmp: --force makes that a warning.
        files = {"key-file": key, "socket": folder / "socket", "log-file": folder / "log", "seed-file": folder / "seed"}
        options = [f"--{name}={path}" for name, path in files.items()]
        subprocess.run(["munged", "--force", f"--pid-file={self.folder}/munged.pid", *options], check=True)

    def _configure(self) -> None:
        folder, host = self.folder, self._host()
        control, node = _free_ports(2)
        (folder / "slurm.conf").write_text(
            f"""ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
SlurmctldPort={control}
SlurmdPort={node}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=1
ReturnToService=2
MinJobAge=3600
KillWait=5
{"GresTypes=gpu" if self.gpus else ""}
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 {f"Gres=gpu:{self.gpus}" if self.gpus else ""}
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
""",
            encoding="utf-8",
        )
        gpu = f"NodeName={host} Name=gpu File=/dev/null Count=1\n" if self.gpus else ""
        (folder / "gres.conf").write_text(gpu, encoding="utf-8")
        SYSTEM.mkdir(exist_ok=True)
        for name in ("slurm.conf", "gres.conf"):
            link = SYSTEM / name
            link.symlink_to(folder / name)
            self._linked.append(link)

    def _wait_for_node(self) -> None:
        idle = self._wait(lambda: "idle" in self.call("sinfo", "--noheader", "--format=%t", check=False), 30)
        assert idle, "\n".join(path.read_text()[-2000:] for path in sorted((self.folder / "log").iterdir()))

    @staticmethod
    def _wait(condition, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
