"""A dry run through each profile whose plugins are installed (make cluster)."""

import importlib.util
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, requires, version

import pytest
from helpers import ROOT
from packaging.requirements import Requirement

pytestmark = pytest.mark.slurm
TARGET = "fig2"
JOBS = {"train": 4, "measure": 4, "account": 1, "fig2": 1}


class Empty(BaseHTTPRequestHandler):
    """A store with one bucket and nothing in it."""

    def answer(self):
        path = self.path.partition("?")[0].strip("/")
        body = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
        body = body if path == "my-bucket" and self.command == "GET" else b""
        self.send_response(200 if path == "my-bucket" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = answer

    def log_message(self, *arguments):
        pass


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setenv("SNAKEMAKE_STORAGE_S3_ACCESS_KEY", "nobody")
    monkeypatch.setenv("SNAKEMAKE_STORAGE_S3_SECRET_KEY", "nothing")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def planned(made, *arguments):
    told = made.run(TARGET, "--dry-run", *arguments)
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", told.partition("Job stats:")[2].split("\n\n")[0], re.MULTILINE))
    return {rule: int(count) for rule, count in jobs.items() if rule != "total"}


@pytest.mark.parametrize("name", ["gpu", "slurm", "cluster-generic"])
def test_dry_run(clone, name):
    plugin = f"snakemake_executor_plugin_{name.replace('-', '_')}"
    if name != "gpu" and not importlib.util.find_spec(plugin):
        pytest.skip(f"{plugin} is not installed; make cluster")
    assert planned(clone(name), "--workflow-profile", f"profiles/{name}") == JOBS


def test_dry_run_of_kubernetes_on_a_store(clone, store):
    if not importlib.util.find_spec("snakemake_executor_plugin_kubernetes"):
        pytest.skip("snakemake_executor_plugin_kubernetes is not installed; make cluster")
    options = ["--workflow-profile", "profiles/kubernetes", "--storage-s3-endpoint-url", store]
    assert planned(clone("kubernetes"), *options) == {"get": 1, **JOBS}  # data, too, are to come into the store


def test_the_plugins_fit_the_snakemake_of_the_main_lock():
    """All that they ask for is installed, as far as pip can tell; botocore gets on with a newer python-dateutil."""
    lines = (ROOT / "requirements-cluster.txt").read_text().splitlines()
    asked = [line for line in lines if "==" in line and not line.startswith("#")]
    if not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        pytest.skip("the plugins are not installed; make cluster")
    unmet = []
    for line in asked:
        name, _, pinned = line.partition("==")
        assert version(name) == pinned
        for text in requires(name) or []:
            needed = Requirement(text)
            if needed.marker and not needed.marker.evaluate({"extra": ""}):
                continue
            try:
                fits = needed.specifier.contains(version(needed.name), prereleases=True)
            except PackageNotFoundError:
                fits = False
            if not fits:
                unmet.append((name, needed.name))
    assert unmet == [("botocore", "python-dateutil")]
