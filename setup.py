"""What pyproject.toml cannot say: the app, the statistics and the published runs go into the package.

They lie beside it in the source tree; `ablation_core/storage.py` knows both places.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
APP = ("app.py", "pages/*.py", ".streamlit/config.toml")
PUBLISHED = (
    "*-mini/*.safetensors",
    "smollm2-135m/*.safetensors",
    "runs/*.jsonl",
    "published-replacements/*/*.safetensors",
)


class BuildWithApp(build_py):
    """Copies them where an installed package looks for them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the source tree itself is used
            return
        package = Path(self.build_lib) / "ablation_core"
        for source, patterns, target in ((ROOT, APP, "app"), (ROOT / "cached_stats", PUBLISHED, "bundled/published")):
            shutil.rmtree(package / target, ignore_errors=True)  # what an earlier build left
            for path in (path for pattern in patterns for path in sorted(source.glob(pattern))):
                place = package / target / path.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)


setup(cmdclass={"build_py": BuildWithApp})
