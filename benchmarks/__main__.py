"""Measure the parts named (all without) and renew them in benchmarks/results.json and results.md."""

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
PARTS = ("steps", "gpu", "attacks", "curvature", "corruptions", "pipeline", "planning")
LIBRARIES = ("numpy", "torch", "opacus", "foolbox", "torchattack", "torchattacks", "jax", "snakemake")
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}


def main(arguments: list[str], output: Path = HERE) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)}; all without")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, few rounds, nothing written: to see that it runs"
    )
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.parts) - set(PARTS)):
        parser.error(f"there is no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}")

    from benchmarks.harness import WrongContestant, progress
    from benchmarks.render import markdown
    from dprobust.errors import UserError
    from dprobust.files import replaced, write_json

    store, measured = output / "results.json", {}
    for name in asked.parts or PARTS:
        progress(f"{name}:")
        about, started = _about(), time.monotonic()
        try:
            tables = []
            for table in import_module(f"benchmarks.{name}").tables(asked.quick):
                progress(f"  {table.title}: done after {time.monotonic() - started:.0f} s")
                tables.append(asdict(table))
        except (UserError, WrongContestant) as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            return 1
        measured[name] = {"about": about | {"seconds": time.monotonic() - started}, "tables": tables}
        if not asked.quick:
            results = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
            write_json(store, results | {name: measured[name]})
            with replaced(output / "results.md") as temporary:
                temporary.write_text(markdown(results | {name: measured[name]}), encoding="utf-8")
    print(markdown(measured))
    return 0


def _about() -> dict:
    from dprobust import records

    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "commit": records.commit() or "not under version control",
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


if __name__ == "__main__":
    os.environ |= ONE_THREAD  # read when the libraries are loaded: before torch is first imported
    sys.exit(main(sys.argv[1:]))
