"""Describe the repository with a published study as a Workflow Run RO-Crate, ro-crate-metadata.json: make crate.

The repository is the crate: its Snakefile the workflow, the published folder what a run of it made
(https://w3id.org/ro/wfrun/workflow/0.5). Called in the repository's root as `python -m workflow.crate STUDY`. Needs
requirements-crate.txt.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from dprobust.errors import UserError
from dprobust.published import Published
from dprobust.publishing import CONFIG, SUMS

RUN = "https://w3id.org/ro/wfrun"
PROFILES = {
    f"{RUN}/process/0.5": "Process Run Crate",
    f"{RUN}/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
LICENSES = "https://spdx.org/licenses"
TYPES = {".pdf": "application/pdf", ".md": "text/markdown", ".html": "text/html"}
FILE = "ro-crate-metadata.json"


def crate(published: Published, root: Path) -> ROCrate:
    """The crate of a repository with a published study.

    Args:
        published: the study, whose folder lies in `root`.
        root: the repository, with Snakefile and CITATION.cff.
    """
    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    manifest = published.manifest
    made = ROCrate(version="1.1")
    license_ = made.add(_entity(made, f"{LICENSES}/{cited['license']}", "CreativeWork", name=cited["license"]))
    profiles = [made.add(_entity(made, url, "CreativeWork", name=name)) for url, name in PROFILES.items()]
    for profile in profiles:
        profile["version"] = profile.id.rpartition("/")[2]
    made.root_dataset["conformsTo"] = profiles
    about = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    made.name, made.description = cited["title"], about["description"]
    made.license, made.datePublished = license_, _date(root)
    workflow = made.add_workflow(root / "Snakefile", "Snakefile", main=True, lang="snakemake")
    workflow["name"], workflow["license"] = cited["title"], license_
    workflow["version"] = cited["version"]
    workflow["conformsTo"] = {"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"}
    readme = made.add_file(root / "README.md", "README.md", properties={"encodingFormat": "text/markdown"})
    readme["about"] = made.root_dataset
    by = ContextEntity(made, "#authors", properties={"@type": "Organization", "name": cited["authors"][0]["name"]})
    made.root_dataset["author"] = made.root_dataset["publisher"] = made.add(by)
    parameter = _entity(made, "#config", "FormalParameter", name="config", additionalType="File", valueRequired="True")
    parameter["conformsTo"] = {"@id": "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"}
    workflow["input"] = made.add(parameter)
    folder = published.folder.relative_to(root)
    config = made.add_file(published.folder / CONFIG, f"{folder}/{CONFIG}", properties={"name": "configuration"})
    config["exampleOfWork"], config["encodingFormat"] = parameter, "application/yaml"
    results = made.add_dataset(published.folder, f"{folder}/", properties={"name": f"results of {manifest['study']}"})
    results["description"] = f"records, figures, tables and verdicts; their SHA-256 are in {SUMS}"
    for name, entry in sorted(manifest["files"].items()):
        stored = entry.get("stored", name)
        if Path(name).suffix in (".pdf", ".md") or name == "report.html":  # the rest is in the folder's own manifest
            file = made.add_file(published.folder / stored, f"{folder}/{stored}", properties={"name": name})
            file["sha256"], file["encodingFormat"] = entry["sha256"], TYPES[Path(name).suffix]
    system = _entity(made, "https://snakemake.github.io", "SoftwareApplication", name="Snakemake")
    system["url"], system["softwareVersion"] = system.id, manifest["versions"].get("snakemake", "")
    action = ContextEntity(made, "#run", properties={"@type": "CreateAction", "name": f"`{manifest['command']}`"})
    action["description"] = f"at commit {', '.join(manifest['records_by']['commit'])} on {manifest['machine']['cpu']}"
    action["instrument"], action["object"], action["result"] = workflow, config, results
    action["softwareRequirements"] = made.add(system)
    made.root_dataset["mentions"] = made.add(action)
    return made


def _entity(made: ROCrate, identifier: str, kind: str, **properties: str) -> ContextEntity:
    return ContextEntity(made, identifier, properties={"@type": kind, **properties})


def _date(root: Path) -> str:
    """When the published state was committed, so that the same state is the same crate."""
    called = ["git", "-C", str(root), "log", "-1", "--format=%cI"]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "1970-01-01"


def main() -> None:
    root = Path.cwd()
    study = sys.argv[1] if len(sys.argv) > 1 else "paper"
    try:
        published = Published(study, root / "published")
        crate(published, root).metadata.write(root)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{FILE}: written")


if __name__ == "__main__":
    main()
