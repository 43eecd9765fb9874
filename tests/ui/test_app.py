"""What the page may cost before it is served."""

import subprocess
import sys


def test_the_page_is_built_without_torch():
    code = (
        "import sys; from dinodemo.ui.app import build_app, make_runs; from dinodemo.ui.services import Services;"
        "from dinodemo.pool import EnginePool; from dinodemo.settings import Settings;"
        "services = Services(Settings(backbone='dinov2-small'), EnginePool());"
        "build_app(services, make_runs(services));"
        "print('torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["False", "False"]
