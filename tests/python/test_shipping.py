"""What is shipped beside the program: manifests, units, rules, dashboards, the bill of materials.

Each file is checked against the program: a setting, a command or a metric that does not exist is a fault.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[2]
OPS = ROOT / "ops"
# The oldest and the newest release of Kubernetes that the manifests are for.
KUBERNETES = ["1.30", kubernetes_validate.latest_version()]


def documents(*folders):
    """Every object of the manifests, with the file that it stands in."""
    for folder in folders:
        for file in sorted((OPS / "kubernetes" / folder).glob("*.yaml")):
            if file.name != "kustomization.yaml":
                yield from ((file.name, found) for found in yaml.safe_load_all(file.read_text()))


def settings():
    """The names of all settings, from the operators' page."""
    return set(re.findall(r"`((?:SMOOTH_|SMOOAI_|AUTH_|WIDGET_|NATS_|RUST_)[A-Z0-9_]+)`", (OPS / "configuration.md").read_text()))


def pods():
    """Every pod of the manifests, as (name, specification)."""
    for _, found in documents("base"):
        if found["kind"] == "Deployment":
            yield found["metadata"]["name"], found["spec"]["template"]["spec"]
        if found["kind"] == "CronJob":
            yield found["metadata"]["name"], found["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def assert_known_command(binary, arguments):
    """Asserts that the program has this command, with all of these flags."""
    command = [word for word in arguments if not word.startswith("-")]
    depth = 2 if command[0] in ("streams", "audit") else 1
    page = subprocess.run([binary, *command[:depth], "--help"], capture_output=True, text=True, check=True).stdout
    for flag in (word for word in arguments if word.startswith("-")):
        assert flag in page, f"{arguments}: no {flag}"


@pytest.mark.parametrize("version", KUBERNETES)
def test_manifests_are_valid(version):
    kinds = []
    for file, found in documents("base", "keda"):
        kinds.append(found["kind"])
        if found["apiVersion"].startswith("keda.sh/"):
            continue
        try:
            kubernetes_validate.validate(found, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{file}, {found['kind']} {found['metadata']['name']}: {error.message}")
    assert {"Deployment", "PodDisruptionBudget", "CronJob", "NetworkPolicy", "ScaledObject"} <= set(kinds)


def test_every_manifest_is_part_of_its_kustomization():
    for folder in ("base", "keda"):
        of_it = yaml.safe_load((OPS / "kubernetes" / folder / "kustomization.yaml").read_text())["resources"]
        files = {file.name for file in (OPS / "kubernetes" / folder).glob("*.yaml")} - {"kustomization.yaml"}
        assert files == {name for name in of_it if name.endswith(".yaml")}


def test_pods_run_without_privileges_and_drain():
    for name, pod in pods():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}, name
    shared = {found["metadata"]["name"]: found for _, found in documents("base") if found["kind"] == "ConfigMap"}
    edge = dict(pods())["edge"]
    assert edge["terminationGracePeriodSeconds"] > int(shared["turnstream-edge"]["data"]["SMOOTH_AGENT_DRAIN_SECS"])


def test_manifests_name_settings_and_commands_that_exist(binary):
    known = settings()
    for _, found in documents("base"):
        if found["kind"] == "ConfigMap" and found["metadata"]["name"] != "turnstream-widget":
            assert set(found["data"]) <= known, set(found["data"]) - known
    # Services refuse unsigned calls, and edges and workers call them.
    for role in ("edge", "worker"):
        assert "SMOOTH_AGENT_CALL_KEY_FILE" in {entry["name"] for entry in dict(pods())[role]["containers"][0]["env"]}, role
    for name, pod in pods():
        for container in pod["containers"]:
            named = {entry["name"] for entry in container.get("env", [])}
            assert named <= known, (name, named - known)
            assert_known_command(binary, container["args"])


def test_probes_and_metrics_are_on_the_operations_port():
    shared = next(found for _, found in documents("base") if found["metadata"]["name"] == "turnstream" and found["kind"] == "ConfigMap")
    port = int(shared["data"]["SMOOTH_AGENT_OPERATIONS"].rsplit(":", 1)[1])
    for _, found in documents("base"):
        if found["kind"] != "Deployment":
            continue
        pod = found["spec"]["template"]
        assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(port)
        (container,) = pod["spec"]["containers"]
        assert {"name": "operations", "containerPort": port} in container["ports"]
        for probe, path in (("readinessProbe", "/ready"), ("livenessProbe", "/health")):
            assert container[probe]["httpGet"] == {"path": path, "port": "operations"}


def metrics():
    """The names in the list of metrics; a histogram has three series."""
    page = (ROOT / "spec" / "metrics.md").read_text()
    names = set()
    for name, kind in re.findall(r"^\| `(turnstream_\w+)` \| (\w+)", page, re.MULTILINE):
        names |= {f"{name}_{series}" for series in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    assert len(names) > 50
    return names


def named_in(expression):
    return set(re.findall(r"turnstream_\w+", expression))


def test_alerts_name_metrics_and_chapters_that_exist():
    rules = yaml.safe_load((OPS / "monitoring" / "alerts.yaml").read_text())
    chapters = {title.lower() for title in re.findall(r"^## (.+)$", (OPS / "runbooks.md").read_text(), re.MULTILINE)}
    known, seen = metrics(), set()
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        name, annotations = rule["alert"], rule["annotations"]
        assert named_in(rule["expr"]) and named_in(rule["expr"]) <= known, (name, named_in(rule["expr"]) - known)
        assert rule["expr"].count("(") == rule["expr"].count(")"), name
        assert rule["labels"]["severity"] in ("page", "warn") and annotations["summary"], name
        assert named_in(annotations["do"]) <= known | {found.rsplit("_", 1)[0] for found in known}, name
        for chapter in re.findall(r"runbook: ([a-z ]+)", annotations["do"]):
            assert chapter.strip() in chapters, (name, chapter)
        assert name not in seen, "an alert is named once"
        seen.add(name)


def test_dashboard_names_metrics_that_exist():
    dashboard = json.loads((OPS / "monitoring" / "dashboard.json").read_text())
    known, shown = metrics(), set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            assert named_in(target["expr"]) <= known, (panel["title"], named_in(target["expr"]) - known)
            shown |= named_in(target["expr"])
    assert len(shown) > 25
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places), "no panel covers another one"


def test_the_image_is_built_from_all_that_is_compiled(tmp_path):
    """What `.dockerignore` lets in is enough for cargo, for the bill of materials, and for every file that is built in."""
    admitted = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in filter(lambda name: (ROOT / name).exists(), admitted):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    subprocess.run([tmp_path / "ops" / "sbom"], check=True, capture_output=True)
    built_in = []
    for file in sorted((tmp_path / "src").rglob("*.rs")):
        if "tests" in file.stem:
            continue
        outside_tests = file.read_text().split("#[cfg(test)]")[0]
        built_in += [file.parent / name for name in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', outside_tests)]
    assert built_in and not [str(file) for file in built_in if not file.exists()]


@pytest.fixture
def prepared(binary, tmp_path):
    """A copy of the compose folder, after `prepare`."""
    folder = tmp_path / "compose"
    shutil.copytree(OPS / "compose", folder, ignore=shutil.ignore_patterns("state", ".env"))
    for _ in range(2):
        # The second time replaces nothing.
        subprocess.run([folder / "prepare"], env={**os.environ, "TURNSTREAM": str(binary)}, check=True, capture_output=True)
    return folder


def test_compose_is_prepared_and_its_servers_take_the_configuration(prepared):
    compose = yaml.safe_load((prepared / "compose.yaml").read_text())
    state = prepared / "state"
    for name, service in compose["services"].items():
        file = service.get("env_file")
        assert file is None or (prepared / file).is_file(), (name, file)
    assert oct((state / "master.key").stat().st_mode & 0o777) == "0o600"
    server = next(service for name, service in compose["services"].items() if name == "nats-1")
    passwords = dict(line.split("=", 1) for line in (state / "passwords.env").read_text().split())
    configuration = (prepared / "nats.conf").read_text().replace("/etc/turnstream", str(state)).replace("../turnstream", str(state))
    # An include is found from the file that names it.
    configuration = configuration.replace(f"include {state}/users.conf", "include state/users.conf")
    (prepared / "local.conf").write_text(configuration)
    nats = os.environ.get("NATS_SERVER", "nats-server")
    checked = subprocess.run(
        [nats, "-t", "-c", prepared / "local.conf"],
        env={**os.environ, **passwords, **server["environment"]}, capture_output=True, text=True,
    )
    assert checked.returncode == 0, checked.stderr


def test_compose_names_settings_and_commands_that_exist(binary):
    compose = yaml.safe_load((OPS / "compose" / "compose.yaml").read_text())
    known = settings()
    for name, service in compose["services"].items():
        if name.startswith("nats-"):
            continue
        assert set(service["environment"]) <= known, (name, set(service["environment"]) - known)
        assert_known_command(binary, service["command"])
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name


def commands_in(page):
    """The commands of a page: lines of code blocks, and code in sentences."""
    text = page.read_text()
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0] for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    sentences = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [
        found[1].split()
        for place in [*lines, *re.findall(r"`([^`\n]+)`", sentences)]
        for found in re.finditer(r"(?:^|[ (])(turnstream [a-z-].*)", place)
    ]


@pytest.mark.parametrize("name", ["README.md", "UPGRADING.md", "configuration.md", "production.md", "runbooks.md", "nats/README.md"])
def test_pages_for_operators_name_commands_that_exist(binary, name):
    pages = {}

    def help_of(*words):
        if words not in pages:
            shown = subprocess.run([binary, *words, "--help"], capture_output=True, text=True)
            pages[words] = shown.stdout if shown.returncode == 0 else None
        return pages[words]

    commands = commands_in(OPS / name)
    for _, first, *rest in commands:
        page = help_of(first)
        assert page, f"there is no `turnstream {first}`"
        if "Commands:" in page and rest and re.fullmatch(r"[a-z-]+", rest[0]):
            page = help_of(first, rest[0])
            assert page, f"there is no `turnstream {first} {rest[0]}`"
        for flag in (word for word in rest if re.fullmatch(r"--[a-z-]+", word)):
            assert re.search(rf"{flag}\b", page), f"`turnstream {first} {' '.join(rest)}`: no {flag}"
    assert commands or name == "configuration.md"


def test_the_compatibility_table_names_the_versions_that_are_tested():
    table = (OPS / "UPGRADING.md").read_text()
    pins = dict(line.split("==") for line in (ROOT / "tests/python/requirements.txt").read_text().splitlines() if "==" in line)
    server = re.search(r'^VERSION = "(.+)"', (OPS / "nats-server").read_text(), re.MULTILINE)[1]
    rust = re.search(r'^rust-version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    row = lambda part: next(line for line in table.splitlines() if line.startswith("| ") and part in line)
    for part, version in [("| nats-server", server), ("| Rust", rust), ("| Kubernetes", KUBERNETES[0]),
                          ("| Kubernetes", KUBERNETES[1].rsplit(".", 1)[0]), *((f"`{name}`", pins[name])
                          for name in ("smooai-smooth-operator", "mcp", "nats-py"))]:
        assert version in row(part), (part, version)


def test_units_are_valid_and_their_commands_exist(binary):
    units = sorted((OPS / "systemd").iterdir())
    for unit in units:
        for command in re.findall(r"^ExecStart=/usr/local/bin/turnstream (.+)$", unit.read_text(), re.MULTILINE):
            roles = [["edge"], ["worker"]] if command == "%i" else [command.split()]
            for role in roles:
                assert_known_command(binary, role)
    for timer in (unit for unit in units if unit.suffix == ".timer"):
        assert timer.with_suffix(".service") in units
    if shutil.which("systemd-analyze"):
        checked = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
        said = [line for line in checked.stderr.splitlines() if "turnstream" in line and "is not executable" not in line]
        assert not said, said


def test_the_bill_of_materials_is_whole():
    bill = json.loads(subprocess.check_output([OPS / "sbom"], text=True))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    refused = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill))
    assert refused is None, refused
    parts = bill["components"]
    references = {part["bom-ref"] for part in parts} | {bill["metadata"]["component"]["bom-ref"]}
    assert len(references) == len(parts) + 1, "each part is named once"
    for part in parts:
        assert part["licenses"] and part["hashes"], part["name"]
    for entry in bill["dependencies"]:
        assert {entry["ref"], *entry["dependsOn"]} <= references
    names = {part["name"] for part in parts}
    assert {"async-nats", "warp", "rustls", "mimalloc"} <= names
    assert not {"openssl", "proptest"} & names
    lean = json.loads(subprocess.check_output([OPS / "sbom", "--no-default-features"], text=True))
    assert "tantivy" not in {part["name"] for part in lean["components"]}


@pytest.fixture
def release(binary, tmp_path):
    """Runs `ops/release`; in the place of a long build, cargo names the program that is there."""
    cargo, programs = shutil.which("cargo"), tmp_path / "programs"
    programs.mkdir()
    built = json.dumps({"executable": str(binary.resolve())})
    (programs / "cargo").write_text(f"#!/bin/sh\n[ \"$1\" = build ] || exec {cargo} \"$@\"\necho '{built}'\n")
    (programs / "cargo").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CC")}
    environment = {**kept, "PATH": f"{programs}:{os.environ['PATH']}", "CARGO_TARGET_DIR": str(tmp_path / "target")}
    return lambda *arguments: subprocess.run([OPS / "release", *arguments], env=environment, capture_output=True, text=True)


def test_a_release_is_stripped_and_has_symbols_sums_and_a_bill(release, tmp_path):
    # `--jobs` is for cargo's build alone.
    done = release("--no-default-features", "--features", "search", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    dist = tmp_path / "target" / "dist"
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=dist, check=True)
    sections = lambda file: subprocess.check_output(["objdump", "--section-headers", dist / file], text=True)
    assert ".debug_info" in sections("turnstream.debug")
    assert ".debug_info" not in sections("turnstream") and ".gnu_debuglink" in sections("turnstream")
    parts = {part["name"] for part in json.loads((dist / "turnstream.cdx.json").read_text())["components"]}
    assert "tantivy" in parts and "parquet" not in parts, "the bill is of this build's features"
    (dist / "turnstream").write_bytes(b"another program")
    assert subprocess.run(["sha256sum", "--check", "--status", "SHA256SUMS"], cwd=dist).returncode == 1


@pytest.mark.parametrize("form", [["--target", "riscv64gc-unknown-none-elf-x"], ["--target=riscv64gc-unknown-none-elf-x"]])
def test_a_release_for_a_missing_target_says_how_to_get_it(release, form):
    refused = release(*form)
    assert refused.returncode == 1
    assert "rustup target add riscv64gc-unknown-none-elf-x" in refused.stderr
