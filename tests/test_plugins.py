"""Detectors of other packages: by `--plugin`, by entry point, and refused in words."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import CommandResult
from pyimgano.detectors import create_detector, detector_class, plugins
from pyimgano.detectors.plugins import interface_problems, load_plugins
from pyimgano_runtime.errors import ConfigError

Run = Callable[..., CommandResult]
ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
EXAMPLE = "plugin_detector:EdgeDensity"
MODEL = {"name": "edge_density", "options": {"image_size": [64, 64]}}
GOOD = """
    from plugin_detector import EdgeDensity

    class Mine(EdgeDensity):
        name = "{name}"
"""


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins as a process does, with the examples' folder on its path."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXAMPLES)])
    before = set(sys.modules)
    plugins._loaded.clear()
    yield
    plugins._loaded.clear()
    for name in set(sys.modules) - before:
        if name.startswith("made_"):
            del sys.modules[name]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Give a function that writes a module `made_...` and puts it on the path."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def write(module: str, text: str, **fill: str) -> str:
        source = textwrap.dedent(text)
        for key, value in fill.items():
            source = source.replace(f"{{{key}}}", value)
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        return f"{module}:Mine"

    return write


def install(folder: Path, package: str, points: dict[str, str]) -> None:
    """Write what pip leaves of a distribution that registers entry points."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    lines = [f"{name} = {home}" for name, home in points.items()]
    text = "\n".join(["[pyimgano.detectors]", *lines, ""])
    (info / "entry_points.txt").write_text(text, encoding="utf-8")
    facts = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
    (info / "METADATA").write_text(facts, encoding="utf-8")


def test_the_example_trains_exports_checks_and_infers(
    run_cli: Run, make_config: Callable[..., Path], small_dataset: Path, tmp_path: Path
) -> None:
    config = make_config(small_dataset, model=MODEL)
    run, bundle, out = tmp_path / "run", tmp_path / "bundle", tmp_path / "bench"
    plug = ("--plugin", EXAMPLE)
    picture = next(small_dataset.parent.rglob("*.png"))

    preflight = run_cli("preflight", *plug, "--config", config)
    assert preflight.code == 0, preflight.stderr
    trained = run_cli("train", *plug, "--config", config, "--output", run)
    assert trained.code == 0, trained.stderr
    export = ("bundle", "export", "--run", run, "--output", bundle)
    exported = run_cli(*export, *plug)
    assert exported.code == 0, exported.stderr
    verified = run_cli("bundle", "verify", bundle, "--run", run, *plug)
    assert verified.code == 0, verified.stderr
    by_run = run_cli("infer", *plug, "--from-run", run, picture)
    assert by_run.code == 0, by_run.stderr
    compare = ("benchmark", "--run", run, "--bundle", bundle, "--output", out)
    compared = run_cli(*compare, *plug)  # torch is opened in a process of its own, too
    assert compared.code == 0, compared.stderr
    engines = json.loads((out / "report.json").read_text())["categories"]["bracket"][
        "engines"
    ]
    assert engines["torch"]["peak_rss_mb"] is not None

    # What ships needs the plug-in no more.
    plugins._loaded.clear()
    by_bundle = run_cli("infer", "--infer-config", bundle, picture)
    assert by_bundle.code == 0, by_bundle.stderr
    scores = [json.loads(row.stdout)["score"] for row in (by_run, by_bundle)]
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)
    checked = subprocess.run(
        [sys.executable, "-m", "pyimgano_runtime.cli", "check", str(bundle)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr

    # The run does: it says what is missing.
    for command in (
        ("infer", "--from-run", run, picture),
        (*export, "--force"),
        ("bundle", "verify", bundle, "--run", run),
    ):
        refused = run_cli(*command)
        assert refused.code == 2, refused.stdout
        said = refused.stdout + refused.stderr  # verify lists its findings on stdout
        assert '"edge_density"' in said
        assert "--plugin package.module:Class" in said
    checkpoint = run / "checkpoints/bracket/model.safetensors"
    command = ("infer", "--model", "edge_density", "--checkpoint", checkpoint)
    refused = run_cli(*command, "--threshold", "1", picture)
    assert refused.code == 2
    assert f"pass --plugin {EXAMPLE}" in refused.stderr


def test_a_suite_takes_the_plug_in_into_its_cells(
    run_cli: Run, small_dataset: Path, tmp_path: Path
) -> None:
    suite, output = tmp_path / "suite.json", tmp_path / "out"
    dataset = {"dataset": "manifest", "manifest_path": str(small_dataset)}
    suite.write_text(json.dumps({"models": [MODEL], "datasets": [dataset]}))
    command = ("benchmark", "--suite", suite, "--output", output)
    quick = ("--no-process-costs", "--no-pixel-metrics")
    done = run_cli(*command, *quick, "--plugin", EXAMPLE)
    assert done.code == 0, done.stderr
    assert json.loads((output / "report.json").read_text())["state"] == "finished"


def test_an_entry_point_is_found_by_name_and_imported_only_then(
    make: Callable[..., str], tmp_path: Path
) -> None:
    install(tmp_path, "made-package", {"own": make("made_own", GOOD, name="own")})
    assert detector_class("pixel_stats").name == "pixel_stats"
    with pytest.raises(ConfigError, match=r"known: .*own"):
        detector_class("oown")
    assert "made_own" not in sys.modules
    assert create_detector("own", {"sigma_px": 1.0}).config.sigma_px == 1.0


def test_an_installed_package_trains_in_a_process_of_its_own(
    small_dataset: Path, make_config: Callable[..., Path], tmp_path: Path
) -> None:
    site = tmp_path / "site"
    install(site, "edge-density", {"edge_density": EXAMPLE})
    (site / "plugin_detector.py").write_bytes(
        (EXAMPLES / "plugin_detector.py").read_bytes()
    )
    config = make_config(small_dataset, model=MODEL)
    command = ["train", "--config", str(config), "--output", str(tmp_path / "run")]
    path = os.pathsep.join([str(site), *filter(None, sys.path[:-1])])
    done = subprocess.run(
        [sys.executable, "-m", "pyimgano.cli", *command, "--export-bundle"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_broken_entry_point_harms_no_other_detector(
    make: Callable[..., str], tmp_path: Path
) -> None:
    home = make("made_broken", "raise RuntimeError('no licence')")
    install(tmp_path, "made-package", {"broken": home})
    assert detector_class("pixel_stats").name == "pixel_stats"
    message = (
        "model.name: entry point of made-package 1.0: made_broken:Mine cannot be "
        "imported (RuntimeError: no licence)"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        detector_class("broken", "model.name")


def test_an_entry_point_must_have_the_name_of_its_class(
    make: Callable[..., str], tmp_path: Path
) -> None:
    install(tmp_path, "made-package", {"one": make("made_named", GOOD, name="two")})
    with pytest.raises(ConfigError, match=r'registered as "one".*is called "two"'):
        detector_class("one")


def test_two_packages_with_one_name_are_refused_naming_both(
    make: Callable[..., str], tmp_path: Path
) -> None:
    for module in ("made_a", "made_b"):
        make(module, GOOD, name="own")
        install(tmp_path, module, {"own": f"{module}:Mine"})
    with pytest.raises(ConfigError, match=r"made_a:Mine.*made_b:Mine|made_b.*made_a"):
        detector_class("own")


def test_two_plug_ins_with_one_name_are_refused_naming_both(
    make: Callable[..., str],
) -> None:
    first = make("made_a", GOOD, name="own")
    second = make("made_b", GOOD, name="own")
    with pytest.raises(ConfigError, match=r"made_a:Mine.*made_b:Mine"):
        load_plugins([first, second])


def test_the_same_plug_in_twice_is_one(make: Callable[..., str]) -> None:
    home = make("made_a", GOOD, name="own")
    load_plugins([home, home])
    assert plugins.loaded_homes() == [home]


@pytest.mark.parametrize("how", ["option", "entry point"])
def test_a_plug_in_cannot_take_the_name_of_one_of_ours(
    how: str, make: Callable[..., str], tmp_path: Path
) -> None:
    home = make("made_a", GOOD, name="padim")
    if how == "entry point":
        install(tmp_path, "made-package", {"padim": home})
    with pytest.raises(ConfigError, match=r"padim:PaDiM \(of pyimgano.*made_a:Mine"):
        load_plugins([home]) if how == "option" else detector_class("padim")


def test_all_that_a_class_lacks_is_said_at_once(make: Callable[..., str]) -> None:
    home = make(
        "made_short",
        """
        from dataclasses import dataclass
        from pyimgano.detectors.interface import Detector

        @dataclass
        class Options:
            size: int = 3

        class Mine(Detector):
            name = "My Detector"
            trains = 1
            Config = Options
            presets = {"fast": {"sice": 2}}

            def forward(self):
                pass
        """,
    )
    with pytest.raises(ConfigError) as refused:
        load_plugins([home])
    for part in (
        "name: found 'My Detector', expected a text such as \"mean_colour\"",
        "trains: found 1",
        "fit: missing",
        "forward: cannot be called",
        "preprocess_steps: missing",
        "map_size: missing",
        "Config: expected @dataclass(frozen=True",
        "Config.size: expected pyimgano.option_fields.option",
    ):
        assert part in str(refused.value), part


def test_a_feature_detector_lacks_its_own_three_methods(
    make: Callable[..., str],
) -> None:
    from pyimgano.detectors.feature_detector import FeatureDetector

    problems = interface_problems(FeatureDetector)
    assert "fit_features: missing" in problems
    assert "features, score_features: missing" in problems


def test_a_module_that_is_no_subclass_but_honours_the_interface_is_taken(
    run_cli: Run,
    make: Callable[..., str],
    make_config: Callable[..., Path],
    small_dataset: Path,
    tmp_path: Path,
) -> None:
    home = make(
        "made_alone",
        """
        import torch
        from dataclasses import asdict, dataclass
        from pyimgano.option_fields import option

        @dataclass(frozen=True, slots=True, kw_only=True)
        class Options:
            weight: float = option(1.0, "what the brightness counts")

        class Mine(torch.nn.Module):
            name = "alone"
            Config = Options
            presets = {}
            uses_defects = needs_weights = has_map = trains = False

            def __init__(self, config):
                super().__init__()
                self.config = config
                self.register_buffer("mean", torch.zeros(()))

            def fit(self, data, *, context):
                batches = [b.float().mean(dim=(1, 2, 3)) for b in data.normals()]
                self.mean = torch.cat(batches).mean()
                return self

            def forward(self, images):
                grey = images.float().mean(dim=3).mean(dim=2).mean(dim=1)
                return (grey - self.mean).abs() * self.config.weight, None

            def preprocess_steps(self):
                return []

            def postprocess_steps(self):
                return []

            def map_size(self):
                return None

            def used_backbones(self):
                return []

            def hyper_parameters(self):
                return asdict(self.config)

            @classmethod
            def from_config(cls, config):
                return cls(config)

            @classmethod
            def from_state(cls, config, tensors):
                detector = cls(config)
                detector.load_state_dict(tensors)
                return detector.eval()
        """,
    )
    config = make_config(small_dataset, model={"name": "alone", "options": {}})
    command = ("train", "--config", config, "--output", tmp_path / "run")
    done = run_cli(*command, "--export-bundle", "--plugin", home)
    assert done.code == 0, done.stderr


@pytest.mark.parametrize("method", ["fit_features", "features", "score_features"])
def test_what_a_plug_in_raises_names_it_and_keeps_its_traceback(
    method: str,
    run_cli: Run,
    make: Callable[..., str],
    make_config: Callable[..., Path],
    small_dataset: Path,
    tmp_path: Path,
) -> None:
    text = GOOD + "\n    def {method}(self, *a, **k):\n        raise KeyError('lens')\n"
    text = textwrap.dedent(GOOD) + text[len(GOOD) :]
    home = make(f"made_{method}", text, name="faulty", method=method)
    config = make_config(small_dataset, model={"name": "faulty", "options": {}})
    command = ("train", "--config", config, "--output", tmp_path / "run")
    failed = run_cli(*command, "--plugin", home)
    assert failed.code == 1
    assert failed.stderr.splitlines()[-1].startswith(
        f"pyimgano: plug-in faulty ({home}): "
    )
    assert "failed: KeyError: 'lens'" in failed.stderr
    assert f"made_{method}.py" in failed.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("home", "words"),
    [
        ("nothing", "expected package.module:Class"),
        ("os;print(1):x", "expected package.module:Class"),
        ("not_there.at_all:X", "current folder"),
        ("plugin_detector:Color", "its classes: EdgeDensityConfig, EdgeDensity"),
        ("plugin_detector:EdgeDensityConfig", "is not an nn.Module"),
    ],
)
def test_a_plug_in_that_cannot_be_loaded_is_refused_in_words(
    home: str, words: str, run_cli: Run, tmp_path: Path
) -> None:
    refused = run_cli("train", "--config", tmp_path / "c.json", "--plugin", home)
    assert refused.code == 2
    assert f"--plugin {home}" in refused.stderr
    assert words in refused.stderr


def test_the_current_folder_is_looked_in_but_hides_nothing(
    run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_here.py").write_text("class Mine: ...\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    refused = run_cli("train", "--config", "c.json", "--plugin", "made_here:Mine")
    assert "made_here:Mine is not a detector yet" in refused.stderr
    assert sys.path[-1] == str(tmp_path)


def test_a_config_names_a_plug_in_but_imports_nothing(
    run_cli: Run, make: Callable[..., str], make_config: Any, small_dataset: Path
) -> None:
    home = make("made_never", GOOD, name="never")
    for name in ("never", home):
        config = make_config(small_dataset, model={"name": name, "options": {}})
        refused = run_cli("train", "--config", config, "--dry-run")
        assert refused.code == 2
        assert "--plugin package.module:Class" in refused.stderr
    assert "made_never" not in sys.modules


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    assert (EXAMPLES / "plugin_detector.py").read_text("utf-8") in page


@pytest.mark.slow
def test_the_conformance_suite_runs_on_a_plug_in() -> None:
    path = os.pathsep.join([*filter(None, sys.path)])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-k", "edge_density"),
            str(ROOT / "tests" / "test_detectors_conformance.py"),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "PYIMGANO_TEST_PLUGINS": EXAMPLE},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
