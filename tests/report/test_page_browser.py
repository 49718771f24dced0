"""The report in a browser, and at the end of a sweep: `make test-slow`.

Needs `chromium` (apt-get install chromium); where QUANTBENCH_AXE names axe.min.js of npm's axe-core, also that this
finds no serious violation.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from command import Workdir
from made_content import content
from quantbench.report.page.figures import sections
from quantbench.report.page.page import html

pytestmark = pytest.mark.slow

SIZES = {"desktop": "1400,20000", "phone": "390,40000"}

RUN_AXE = """<script>
setTimeout(() => axe.run(document, { resultTypes: ["violations"] }).then((found) => {
  const told = document.createElement("pre");
  told.id = "axe";
  told.textContent = JSON.stringify(found.violations.map((one) => [one.impact, one.id, one.nodes[0].html]));
  document.body.append(told);
}), 8000);
</script></body>"""


AT_ONCE = """<body><script>
window.IntersectionObserver = class {
  constructor(seen) { this.seen = seen; }
  observe(target) { this.seen([{ isIntersecting: true, target }]); }
  unobserve() {}
};
</script>"""
"""Every chart is near: a browser without a screen, whose time runs ahead, may show no frame to say so."""


@pytest.fixture(scope="module")
def page() -> str:
    made = content()
    return html(made, sections(made))


def opened(text: str, folder: Path, size: str) -> tuple[str, str]:
    """The document after its scripts have run, and what the browser's console said."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium")
    path = folder / "report.html"
    assert text.count("\n<body>\n") == 1
    path.write_text(text.replace("\n<body>\n", f"\n{AT_ONCE}\n"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--window-size={size}"]
    flags += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=300000", "--dump-dom"]
    done = subprocess.run([browser, *flags, path.as_uri()], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(said)


@pytest.mark.parametrize("size", SIZES)
def test_all_charts_are_drawn_and_the_console_is_silent(page: str, tmp_path: Path, size: str) -> None:
    document, said = opened(page, tmp_path, SIZES[size])
    assert said == ""
    n = document.count("<figure ")
    assert n > 15
    assert document.count('class="chart drawn"') == n


def test_axe_finds_no_serious_violation(page: str, tmp_path: Path) -> None:
    axe = os.environ.get("QUANTBENCH_AXE")
    if axe is None:
        pytest.skip("QUANTBENCH_AXE does not name axe.min.js of axe-core")
    code = Path(axe).read_text(encoding="utf-8").replace("</script", "<\\/script")
    document, _ = opened(page.replace("</body>", f"<script>{code}</script>{RUN_AXE}"), tmp_path, SIZES["desktop"])
    found = re.search(r'<pre id="axe">(.*?)</pre>', document, re.DOTALL)
    assert found is not None, "axe has not run"
    assert [one for one in json.loads(found[1]) if one[0] in ("serious", "critical")] == []


def test_a_sweep_ends_with_its_report(workdir: Workdir) -> None:
    done = workdir.run("-m", "quantizer=rtn,gptq", "quantizer.weight.group_size=16", "report=true")
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    (path,) = workdir.outputs.glob("sweeps/*/report.html")
    assert "python -m quantbench" in path.read_text(encoding="utf-8")
